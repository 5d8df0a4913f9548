// Makes a prompt of a conversation. With Cria (npm package @fastpaca/cria)
// installed beside it, it renders the prompt; without, it shows the nodes that
// Cria is given. No model is called.
import { createClient } from '@fastpaca/fastpaca';
import { criaHistory } from '@fastpaca/fastpaca/cria';

const fastpaca = createClient({ baseUrl: process.env.FASTPACA_URL ?? 'http://localhost:4000' });
const conv = await fastpaca.conversation(`cria-demo-${Date.now()}`, {});
await conv.append([
  { role: 'user', parts: [{ type: 'text', text: 'What is the weather in Oslo?' }] },
  {
    role: 'assistant',
    parts: [
      { type: 'tool-weather', toolCallId: 'call-1', state: 'output-available', input: { city: 'Oslo' }, output: { degrees: 3 } },
      { type: 'text', text: 'Three degrees.' },
    ],
  },
]);

const { messages } = await conv.tail({ limit: 100 });
const history = criaHistory(messages);

const load = async (name) => {
  try {
    return await import(name);
  } catch (error) {
    if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error;
    return undefined;
  }
};

const [core, adapter] = [await load('@fastpaca/cria'), await load('@fastpaca/cria/ai-sdk')];
if (core && adapter) {
  // The provider counts tokens; the model would only be used by `call`.
  const provider = adapter.createProvider({});
  const prompt = await core.cria
    .prompt(provider)
    .system('Be brief.')
    .truncate(history, { budget: 8_000, priority: 2 })
    .user('And in Rome?')
    .render({ budget: 10_000 });
  console.log(JSON.stringify(prompt, null, 2));
} else {
  console.log('Cria is not installed; these are the nodes for its truncate():');
  console.log(JSON.stringify(history, null, 2));
}
