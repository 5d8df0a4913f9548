// A chat whose answers survive a refresh and are the same in every tab. The
// model is a fake; replace `fakeAnswer` by streamText of the AI SDK.
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createUIMessageStream } from 'ai';
import { build } from 'esbuild';
import { createClient } from '@fastpaca/fastpaca';
import { createChatStore, createResumableChat } from '@fastpaca/fastpaca/ai-sdk';

const fastpacaUrl = process.env.FASTPACA_URL ?? 'http://localhost:4000';
const port = Number(process.env.PORT ?? 3000);

const fastpaca = createClient({ baseUrl: fastpacaUrl });
const store = createChatStore(fastpaca);
const chat = createResumableChat(fastpaca, { onError: (error) => console.error('not recorded:', error) });

/** Stands for a model: says slowly what is known beforehand, and stops when told. */
function fakeAnswer({ id, signal, question, onFinish }) {
  const words = `You said “${question}”. I take my time to answer, so that you can close this page, come back, and find that I went on. `.repeat(2).match(/\S+\s*/g);
  return createUIMessageStream({
    generateId: () => `answer-${id}`,
    execute: async ({ writer }) => {
      writer.write({ type: 'start', messageId: `answer-${id}` });
      writer.write({ type: 'text-start', id: 'text' });
      for (const delta of words) {
        if (signal.aborted) break;
        writer.write({ type: 'text-delta', id: 'text', delta });
        await new Promise((done) => setTimeout(done, 80));
      }
      writer.write({ type: 'text-end', id: 'text' });
      writer.write({ type: 'finish' });
    },
    onFinish: async ({ responseMessage }) => {
      await onFinish({ ...responseMessage, id: `answer-${id}` });
    },
  });
}

/** POST /chat: what useChat sends, answered with the stream of the answer. */
const ask = ({ id: chatId, messages }) =>
  chat.start(chatId, async ({ id, signal }) => {
    // Saved when the run can be resumed: other tabs see the question and follow the answer.
    const question = messages.at(-1);
    await store.saveMessage(chatId, question);
    const text = question.parts.map((part) => part.text ?? '').join('');
    return fakeAnswer({ id, signal, question: text, onFinish: (answer) => store.saveMessage(chatId, answer) });
  });

const json = (value) => Response.json(value);

async function route(method, path, body) {
  const [, chatId, action] = /^\/chat\/([^/]+)(?:\/(\w+))?$/.exec(path)?.map((part) => part && decodeURIComponent(part)) ?? [];
  if (method === 'POST' && path === '/chat') return ask(JSON.parse(body));
  if (method === 'POST' && action === 'stop') return json({ stopped: await chat.stop(chatId) });
  if (method === 'GET' && action === 'stream') return chat.resume(chatId);
  if (method === 'GET' && chatId && !action) {
    await fastpaca.conversation(chatId, {}); // the page follows it, so it has to be there
    return json(await store.loadMessages(chatId));
  }
  if (method === 'GET' && path === '/page.js') return new Response(page, { headers: { 'content-type': 'text/javascript' } });
  if (method === 'GET' && path === '/') return new Response(html, { headers: { 'content-type': 'text/html; charset=utf-8' } });
  return new Response('not found', { status: 404 });
}

const html = `<!doctype html>
<meta charset="utf-8">
<title>Fastpaca chat</title>
<style>
  body { font: 16px/1.5 system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
  .user { color: #06c } .status { color: #888; font-size: .9rem }
  form { display: flex; gap: .5rem } input { flex: 1; font: inherit; padding: .4rem }
</style>
<div id="root" data-fastpaca="${fastpacaUrl}"></div>
<script type="module" src="/page.js"></script>`;

const bundled = await build({
  entryPoints: [new URL('page.jsx', import.meta.url).pathname],
  bundle: true,
  format: 'esm',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"' },
  logLevel: 'warning',
  minify: true,
  write: false,
});
const page = bundled.outputFiles[0].text;

const server = createServer(async (req, res) => {
  let body = '';
  for await (const chunk of req) body += chunk;
  let response;
  try {
    response = await route(req.method, new URL(req.url, 'http://page').pathname, body);
  } catch (error) {
    console.error(error);
    response = Response.json({ error: String(error) }, { status: 500 });
  }
  res.writeHead(response.status, Object.fromEntries(response.headers));
  if (!response.body) return res.end();
  await pipeline(Readable.fromWeb(response.body), res).catch(() => {}); // the tab was closed
});
server.listen(port, '127.0.0.1', () => console.log(`open http://127.0.0.1:${server.address().port}/?chat=demo (Fastpaca is ${fastpacaUrl})`));
