import { useChat } from '@ai-sdk/react';
import { createClient } from '@fastpaca/fastpaca';
import { DefaultChatTransport } from 'ai';
import { useEffect, useRef, useState } from 'react';
import { createRoot } from 'react-dom/client';

const root = document.getElementById('root');
const chatId = new URLSearchParams(location.search).get('chat') ?? 'demo';
const conv = createClient({ baseUrl: root.dataset.fastpaca }).ref(chatId);
const load = async () => (await fetch(`/chat/${encodeURIComponent(chatId)}`)).json();
const transport = new DefaultChatTransport({ api: '/chat' });

function Chat({ initial }) {
  const { messages, setMessages, sendMessage, resumeStream, status } = useChat({ id: chatId, messages: initial, resume: true, transport });
  const [text, setText] = useState('');
  const shown = useRef(messages);
  shown.current = messages;

  // What other tabs ask is appended to the conversation: follow it.
  useEffect(() => {
    const events = conv.subscribe();
    const follow = async () => {
      for await (const message of events) {
        if (shown.current.some(({ id }) => id === message.id)) continue;
        setMessages(await load());
        if (message.role === 'user') await resumeStream();
      }
    };
    follow().catch((error) => console.error(error));
    return () => void events.return();
  }, []);

  const send = (event) => {
    event.preventDefault();
    if (text) sendMessage({ text });
    setText('');
  };
  return (
    <>
      {messages.map(({ id, role, parts }) => (
        <p key={id} className={role}>
          {parts.map((part, i) => (part.type === 'text' ? <span key={i}>{part.text}</span> : null))}
        </p>
      ))}
      <p className="status">{status}</p>
      <form onSubmit={send}>
        <input value={text} onChange={(event) => setText(event.target.value)} placeholder="Ask, and refresh the page in the middle of the answer" />
        <button>Send</button>
        <button type="button" onClick={() => fetch(`/chat/${encodeURIComponent(chatId)}/stop`, { method: 'POST' })}>
          Stop
        </button>
      </form>
    </>
  );
}

createRoot(root).render(<Chat initial={await load()} />);
