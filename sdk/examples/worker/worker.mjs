// An agent that answers every message of a user once, whatever happens to it or
// to the servers in between.
//
//   npm start                    asks itself two questions and keeps following
//   npm start -- support-42      answers in that conversation
//
// Its position is kept with the conversation, so it may be killed and started
// anywhere. An answer has an id made of what it answers: one that was appended
// just before a crash is found again and not doubled.
import { createClient, FastpacaError } from '@fastpaca/fastpaca';

const fastpaca = createClient({ baseUrl: process.env.FASTPACA_URL ?? 'http://localhost:4000' });
const demo = process.argv.length < 3;
const id = process.argv[2] ?? 'worker-demo';
const conv = await fastpaca.conversation(id, {});
const positions = await fastpaca.conversation(`${id}:worker`, {});

/** Stands for a model. */
const answer = async (question) => `${question.length} characters, ${question.split(/\s+/).length} words: “${question}”`;

const textOf = (message) => message.parts.map((part) => part.text ?? '').join('');

const [position] = (await positions.tail({ limit: 1 })).messages;
const from = position ? position.parts[0].next : 1;

const control = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => control.abort());

if (demo) {
  await conv.append([
    { role: 'user', parts: [{ type: 'text', text: 'How long is this question?' }] },
    { role: 'user', parts: [{ type: 'text', text: 'And this one, which is longer?' }] },
  ]);
}

console.log(`following ${id} from ${from}; Ctrl-C stops`);
try {
  for await (const message of conv.subscribe({ from, signal: control.signal })) {
    console.log(`${message.seq} ${message.role}: ${textOf(message)}`);
    if (message.role === 'user') {
      await conv.append({ id: `answer-to-${message.seq}`, role: 'assistant', parts: [{ type: 'text', text: await answer(textOf(message)) }] });
      await positions.append({ id: `at-${message.seq}`, role: 'worker', parts: [{ type: 'position', next: message.seq + 1 }] });
    }
  }
  console.log('the conversation was closed');
} catch (error) {
  if (!(error instanceof FastpacaError) || error.code !== 'aborted') throw error;
}
