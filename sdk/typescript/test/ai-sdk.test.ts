// Against the real npm package ai: what is stored is what it makes, and what is
// answered is what its chat understands.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { AbstractChat, DefaultChatTransport, convertToModelMessages, streamText, validateUIMessages, type ChatState, type ChatStatus, type UIMessage } from 'ai';
import { MockLanguageModelV4, simulateReadableStream } from 'ai/test';
import { createClient } from '../src/index.js';
import { createChatStore, createResumableChat, toUIMessages, type ResumableChatOptions } from '../src/ai-sdk/index.js';
import { Model } from './model.js';

class State implements ChatState<UIMessage> {
  status: ChatStatus = 'ready';
  error: Error | undefined = undefined;
  messages: UIMessage[] = [];
  pushMessage = (message: UIMessage) => void (this.messages = [...this.messages, message]);
  popMessage = () => void (this.messages = this.messages.slice(0, -1));
  replaceMessage = (i: number, message: UIMessage) => void (this.messages = Object.assign([...this.messages], { [i]: structuredClone(message) }));
  snapshot = <T>(value: T): T => structuredClone(value);
}

class Tab extends AbstractChat<UIMessage> {
  constructor(api: typeof fetch, messages: UIMessage[] = []) {
    const state = new State();
    state.messages = messages;
    super({ id: 'chat', state, transport: new DefaultChatTransport({ api: 'http://app/chat', fetch: api }) });
  }
  get answer() {
    const last = this.messages.at(-1);
    const parts = last?.role === 'assistant' ? last.parts : [];
    return parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
  }
}

const words = ['To ', 'resume ', 'is ', 'to ', 'go ', 'on.'];
const whole = words.join('');

/** A server of an application: the fake model, the store and the three handlers. */
async function setup(t: TestContext, { delay = 20, ...options }: ResumableChatOptions & { delay?: number } = {}) {
  const server = await Model.start(t);
  const fastpaca = createClient({ baseUrl: server.url });
  const store = createChatStore(fastpaca);
  const runs: Promise<unknown>[] = [];
  const chat = createResumableChat(fastpaca, { batchMs: 10, waitUntil: (run) => runs.push(run), ...options });
  const usage = { inputTokens: { total: 1, noCache: 1, cacheRead: 0, cacheWrite: 0 }, outputTokens: { total: 1, text: 1, reasoning: 0 } };
  const model = new MockLanguageModelV4({
    doStream: async ({ abortSignal }) => ({
      stream: simulateReadableStream({
        initialDelayInMs: 5,
        chunkDelayInMs: delay,
        chunks: [
          { type: 'text-start' as const, id: '1' },
          ...words.map((delta) => ({ type: 'text-delta' as const, id: '1', delta })),
          { type: 'text-end' as const, id: '1' },
          { type: 'finish' as const, finishReason: { unified: 'stop' as const, raw: 'stop' }, usage },
        ],
      }).pipeThrough(
        new TransformStream({
          start: (controller) => abortSignal?.addEventListener('abort', () => controller.error(abortSignal.reason)),
        }),
      ),
    }),
  });
  const answer = async (messages: UIMessage[]) => {
    await store.saveMessage('chat', messages.at(-1)!);
    return chat.start('chat', async ({ id, signal }) => {
      const result = streamText({ model, messages: await convertToModelMessages(messages), abortSignal: signal });
      return result.toUIMessageStream({
        originalMessages: messages,
        generateMessageId: () => `answer-${id}`,
        onFinish: async ({ responseMessage }) => {
          await store.saveMessage('chat', responseMessage);
        },
      });
    });
  };
  /** What a tab sends, until its connection is cut. */
  const connection = (signal?: AbortSignal): typeof fetch => async (url, init) => {
    const response = init?.method === 'POST' ? await answer(JSON.parse(String(init.body)).messages) : await chat.resume('chat', { signal });
    assert.match(String(url), /\/chat(\/chat\/stream)?$/);
    if (!signal || !response.body) return response;
    return new Response(response.body.pipeThrough(new TransformStream(), { signal }), response);
  };
  return { server, fastpaca, store, chat, runs, connection };
}

const until = async (met: () => boolean) => {
  while (!met()) await new Promise((done) => setTimeout(done, 2));
};

test('UIMessages come back as they were, and are valid', async (t) => {
  const { store } = await setup(t);
  const messages: UIMessage[] = [
    { id: 'u1', role: 'user', metadata: { at: 1 }, parts: [{ type: 'text', text: 'hi' }, { type: 'file', mediaType: 'image/png', url: 'https://a/b.png' }] },
    {
      id: 'a1',
      role: 'assistant',
      parts: [
        { type: 'step-start' },
        { type: 'reasoning', text: 'hm', state: 'done' },
        { type: 'tool-weather', toolCallId: 'c1', state: 'input-available', input: { city: 'Oslo' } } as never,
        { type: 'data-note', data: { n: 1 } },
      ],
    },
  ];
  assert.deepEqual(await store.loadMessages('chat'), []);
  await store.saveMessages('chat', messages);
  assert.deepEqual(await store.loadMessages('chat'), messages);
  assert.equal((await store.saveMessage('chat', messages[0]!)).duplicate, true);

  const settled = structuredClone(messages[1]!);
  Object.assign(settled.parts[2]!, { state: 'output-available', output: { degrees: 3 } });
  await store.saveMessage('chat', settled);
  const loaded = await store.loadMessages<UIMessage>('chat');
  assert.deepEqual(loaded, [messages[0], settled]);
  assert.deepEqual(await store.loadMessages('chat', { last: 1 }), [settled]);
  assert.deepEqual(await validateUIMessages({ messages: loaded }), loaded);
  assert.equal((await convertToModelMessages(loaded)).length, 3);
});

test('messages of the other dialects are valid, too', async () => {
  const messages = toUIMessages<UIMessage>([
    { seq: 1, role: 'user', parts: [{ type: 'text', text: 'weather?' }] },
    { seq: 2, role: 'assistant', parts: [{ type: 'tool_call', name: 'weather', payload: { city: 'Oslo' } }] },
    { seq: 3, role: 'tool', parts: [{ type: 'tool_result', name: 'weather', payload: { degrees: 3 } }] },
  ]);
  await validateUIMessages({ messages });
  assert.deepEqual((await convertToModelMessages(messages)).map((m) => m.role), ['user', 'assistant', 'tool']);
});

test('a chat from question to stored answer', async (t) => {
  const { server, store, connection, runs } = await setup(t, { delay: 1 });
  const tab = new Tab(connection());
  await tab.sendMessage({ text: 'What is it to resume?' });
  assert.equal(tab.answer, whole);
  await Promise.all(runs);
  const stored = await store.loadMessages('chat');
  assert.deepEqual(stored.map((m) => [m.id, m.role]), tab.messages.map((m) => [m.id, m.role]));
  // Nothing is active any more: a tab that comes now resumes nothing.
  const late = new Tab(connection(), stored as UIMessage[]);
  await late.resumeStream();
  assert.deepEqual([late.status, late.messages.length], ['ready', 2]);
  const run = [...server.logs.keys()].find((id) => id.startsWith('chat:run:'))!;
  assert.equal(server.log(run).tombstoned, true);
});

test('a refresh in the middle of an answer, and a second tab', async (t) => {
  const { store, connection, runs } = await setup(t);
  const cable = new AbortController();
  const first = new Tab(connection(cable.signal));
  const asked = first.sendMessage({ text: 'What is it to resume?' });
  await until(() => first.answer.length > 3);
  cable.abort();
  await asked;
  assert.notEqual(first.answer, whole);

  const history = (await store.loadMessages('chat')) as UIMessage[];
  const tabs = [new Tab(connection(), history), new Tab(connection(), history)];
  await Promise.all(tabs.map((tab) => tab.resumeStream()));
  await Promise.all(runs);
  const stored = (await store.loadMessages('chat')) as UIMessage[];
  for (const tab of tabs) {
    assert.equal(tab.answer, whole);
    assert.deepEqual(tab.messages.map((m) => m.id), stored.map((m) => m.id));
  }
});

test('stop ends the model, the tab that asked and the one that follows', async (t) => {
  const { store, chat, connection, runs } = await setup(t, { delay: 50 });
  const first = new Tab(connection());
  const asked = first.sendMessage({ text: 'Tell me.' });
  await until(() => first.answer.length > 0);
  const second = new Tab(connection(), first.messages.slice(0, 1));
  const followed = second.resumeStream();
  await until(() => second.answer.length > 0);
  assert.equal(await chat.stop('chat'), true);
  await Promise.all([asked, followed, ...runs]);
  assert.equal(await chat.stop('chat'), false);
  assert.equal((await chat.resume('chat')).status, 204);
  assert.notEqual(first.answer, whole);
  assert.deepEqual([first.status, second.status], ['ready', 'ready']);
  assert.equal((await store.loadMessages('chat')).at(-1)!.role, 'assistant');
});

test('a run whose process died is closed by whoever resumes it', async (t) => {
  const { fastpaca, chat, connection } = await setup(t, { deadAfterMs: 50 });
  const run = await fastpaca.conversation('chat:run:r', {});
  await run.append({ role: 'assistant', parts: [{ type: 'data-ui-chunks', data: [{ type: 'start', messageId: 'm' }, { type: 'text-start', id: '1' }, { type: 'text-delta', id: '1', delta: 'half' }] }] });
  await (await fastpaca.conversation('chat:runs', {})).append({ role: 'system', parts: [{ type: 'data-run', data: { run: 'r' } }] });
  const tab = new Tab(connection());
  await tab.resumeStream();
  assert.deepEqual([tab.answer, tab.status], ['half', 'ready']);
  assert.equal((await chat.resume('chat')).status, 204);
});

test('a model that fails', async (t) => {
  const { chat, runs } = await setup(t);
  const response = await chat.start('chat', new ReadableStream({ start: (c) => c.error(new Error('overloaded')) }));
  assert.match(await response.text(), /"type":"error","errorText":"overloaded".*\[DONE\]/s);
  await Promise.all(runs);
  await assert.rejects(chat.start('chat', () => Promise.reject(new Error('no key'))), /no key/);
  assert.equal((await chat.resume('chat')).status, 204);
});

test('an answer goes on when it cannot be recorded', async (t) => {
  const errors: unknown[] = [];
  const { server, connection, runs } = await setup(t, { onError: (error) => errors.push(error) });
  const tab = new Tab(connection());
  server.intercept = (seen, res) => seen.path.includes('%3Arun%3A') && seen.method === 'POST' && (res.writeHead(500).end('broken'), true);
  await tab.sendMessage({ text: 'Go on.' });
  await Promise.all(runs);
  assert.equal(tab.answer, whole);
  assert.equal((errors[0] as { code?: string }).code, 'unexpected_response');
});

test('a run that is silent shows that it lives, and hears that it was stopped', async (t) => {
  const { server, chat, runs } = await setup(t, { heartbeatMs: 10 });
  let stopped = false;
  const response = await chat.start('chat', ({ signal }) => {
    signal.addEventListener('abort', () => (stopped = true));
    return new ReadableStream({ start: (c) => signal.addEventListener('abort', () => c.close()) });
  });
  const run = [...server.logs.keys()].find((id) => id.startsWith('chat:run:'))!;
  await until(() => server.log(run).messages.length > 2);
  await chat.stop('chat');
  assert.match(await response.text(), /DONE/);
  await Promise.all(runs);
  assert.equal(stopped, true);
});
