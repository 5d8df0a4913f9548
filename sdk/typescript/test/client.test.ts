import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import { FastpacaError, createClient, type ClientOptions } from '../src/index.js';
import { Model, answer, refuse } from './model.js';

async function setup(t: TestContext, options: ClientOptions = {}) {
  const model = await Model.start(t);
  return { model, fastpaca: createClient({ baseUrl: `${model.url}/v1`, ...options }) };
}

const failure = async (call: Promise<unknown>): Promise<FastpacaError> => {
  const error = await call.then(
    () => assert.fail('it succeeded'),
    (e: unknown) => e,
  );
  assert(error instanceof FastpacaError, String(error));
  return error;
};

const hello = { role: 'user', parts: [{ type: 'text', text: 'Hello!' }] };

test('the code of the README runs as it is', async (t) => {
  const { model, fastpaca } = await setup(t);
  model.append('chat-123', ...Array.from({ length: 60 }, (_, i) => `${i + 1}`));

  const conv = await fastpaca.conversation('chat-123', {
    metadata: { user_id: 'u_123', channel: 'web' }
  });
  await conv.append({ role: 'user', parts: [{ type: 'text', text: 'Hello!' }] });
  await conv.append({ role: 'assistant', parts: [{ type: 'text', text: 'Hi there!' }] });
  const { messages } = await conv.tail({ limit: 100 });
  const { messages: replay } = await conv.replay({ from: 50, limit: 50 });

  assert.equal(messages.length, 62);
  assert.deepEqual(replay.map((m) => m.seq), Array.from({ length: 13 }, (_, i) => 50 + i));
  assert.equal((messages.at(-1)!.parts[0] as { text?: string }).text, 'Hi there!');
  const info = await fastpaca.getConversation('chat-123');
  assert.deepEqual(info.metadata, { user_id: 'u_123', channel: 'web' });
  await fastpaca.tombstoneConversation('chat-123');
  assert.equal((await conv.get()).tombstoned, true);
  assert.equal((await failure(conv.append(hello))).code, 'conversation_tombstoned');
});

test('a handle without options sends nothing, and with empty ones creates', async (t) => {
  const { model, fastpaca } = await setup(t);
  const conv = await fastpaca.conversation('a');
  assert.equal(model.seen.length, 0);
  const missing = await failure(conv.append(hello));
  assert.deepEqual([missing.status, missing.code, missing.retryable, missing.attempts], [404, 'conversation_not_found', false, 1]);
  await fastpaca.conversation('a', {});
  assert.equal((await conv.append(hello)).seq, 1);
});

test('id, metadata and token count of a message are sent; options win', async (t) => {
  const { model, fastpaca } = await setup(t);
  const conv = await fastpaca.conversation('a', {});
  await conv.append({ id: 'm1', metadata: { a: 1 }, token_count: 3, ...hello });
  await conv.append({ id: 'm2', metadata: { a: 1 }, token_count: 3, ...hello }, { metadata: { b: 2 }, tokenCount: 9, ifVersion: 1, idempotencyKey: 'k' });
  const sent = model.seen.slice(-2).map((s) => JSON.parse(s.body));
  assert.deepEqual(sent[0], { message: { id: 'm1', metadata: { a: 1 }, token_count: 3, ...hello } });
  assert.deepEqual(sent[1], { message: { id: 'm2', metadata: { b: 2 }, token_count: 9, ...hello }, if_version: 1 });
  assert.equal(model.seen.at(-1)!.headers['idempotency-key'], 'k');
  // Nothing else of a UIMessage or of a message that was read is sent back.
  await conv.append((await conv.tail()).messages[0]!);
  assert.deepEqual(Object.keys(JSON.parse(model.seen.at(-1)!.body).message).sort(), ['id', 'metadata', 'parts', 'role', 'token_count']);
});

test('several messages are one request', async (t) => {
  const { model, fastpaca } = await setup(t);
  const conv = await fastpaca.conversation('a', {});
  const done = await conv.append([hello, { ...hello, role: 'assistant' }]);
  assert.deepEqual([done.seq, done.last_seq, done.messages?.length], [1, 2, 2]);
  assert.equal(model.seen.length, 2);
  assert.equal((await failure(conv.append([hello], { tokenCount: 1 }))).code, 'invalid_argument');
});

test('an append that was lost on the way back is repeated with the same id', async (t) => {
  const { model, fastpaca } = await setup(t);
  const conv = await fastpaca.conversation('a', {});
  let lost = 0;
  model.intercept = (seen, res) => {
    if (seen.method !== 'POST' || lost++) return false;
    model.add('a', JSON.parse(seen.body).message); // stored, and then the connection breaks
    res.destroy();
    return true;
  };
  const done = await conv.append(hello);
  assert.deepEqual([done.seq, done.duplicate], [1, true]);
  assert.equal(model.log('a').messages.length, 1);
  const [first, second] = model.seen.slice(-2);
  assert.equal(first!.body, second!.body);
  assert.match(JSON.parse(first!.body).message.id, /^[0-9a-f-]{36}$/);
});

for (const [status, code, retried] of [
  [408, 'request_timeout', true],
  [429, 'rate_limited', true],
  [502, 'bad_gateway', true],
  [503, 'unavailable', true],
  [504, 'outcome_unknown', true],
  [400, 'invalid_message', false],
  [409, 'conflict', false],
  [413, 'payload_too_large', false],
  [500, 'internal', false],
] as const) {
  test(`${status} ${code} is ${retried ? '' : 'not '}tried again`, async (t) => {
    const { model, fastpaca } = await setup(t, { retries: 2 });
    model.log('a');
    model.intercept = (_, res) => refuse(res, status, code, { current_version: 7, earliest_seq: 3 });
    const error = await failure(fastpaca.ref('a').append(hello));
    assert.deepEqual(
      [error.name, error.status, error.code, error.retryable, error.attempts, model.seen.length],
      ['FastpacaError', status, code, retried, retried ? 3 : 1, retried ? 3 : 1],
    );
    assert.deepEqual([error.requestId, error.currentVersion, error.earliestSeq], ['req-1', 7, 3]);
  });
}

test('Retry-After is waited for, and handed over when it is long', async (t) => {
  const { model, fastpaca } = await setup(t);
  model.log('a');
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let answers = 0;
  model.intercept = (_, res) => {
    if (answers++) return false;
    setImmediate(() => setImmediate(tick));
    return refuse(res, 503, 'overloaded', {}, { 'retry-after': '2' });
  };
  let waited = 0;
  let done = false;
  const tick = () => {
    if (done) return;
    t.mock.timers.tick(100);
    waited += 100;
    setImmediate(tick);
  };
  await fastpaca.getConversation('a');
  done = true;
  assert(waited >= 2000, `${waited}`);
  model.intercept = (_, res) => refuse(res, 429, 'rate_limited', {}, { 'retry-after': new Date(Date.now() + 3_600_000).toUTCString() });
  const error = await failure(fastpaca.getConversation('a'));
  assert.equal(error.attempts, 1);
  assert(error.retryAfterMs! > 3_500_000);
});

test('what is no Fastpaca server is said to be none', async (t) => {
  const { model, fastpaca } = await setup(t, { retries: 0 });
  const html = (status: number) => {
    model.intercept = (_, res) => (res.writeHead(status, { 'content-type': 'text/html' }).end('<html>Welcome</html>'), true);
    return failure(fastpaca.getConversation('a'));
  };
  for (const [status, retryable] of [[200, false], [404, false], [502, true]] as const) {
    const error = await html(status);
    assert.deepEqual([error.status, error.code, error.retryable], [status, 'unexpected_response', retryable]);
    assert.match(error.message, /text\/html.*Welcome.*Is this the address/);
  }
  model.intercept = (_, res) => (res.writeHead(200, { 'content-type': 'application/json' }).end('{"messages":['), true);
  assert.equal((await failure(fastpaca.ref('a').tail())).code, 'unexpected_response');
  model.intercept = (_, res) => answer(res, 400, { unexpected: 'shape' });
  assert.equal((await failure(fastpaca.ref('a').tail())).code, 'unexpected_response');
});

test('a redirected write is refused and not turned into a read', async (t) => {
  const { model, fastpaca } = await setup(t);
  model.log('a');
  model.intercept = (seen, res) => seen.method === 'POST' && (res.writeHead(302, { location: '/v1/conversations/a' }).end(), true);
  const error = await failure(fastpaca.ref('a').append(hello));
  assert.deepEqual([error.code, error.status], ['unexpected_response', 302]);
  assert.match(error.message, /redirects to \/v1\/conversations\/a/);
});

test('a refused connection', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((done) => server.once('listening', done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  const error = await failure(createClient({ baseUrl: `http://127.0.0.1:${port}`, retries: 1 }).getConversation('a'));
  assert.deepEqual([error.code, error.status, error.retryable, error.attempts], ['network', 0, true, 2]);
  assert.match(error.message, /ECONNREFUSED/);
  assert(error.cause instanceof TypeError);
  void t;
});

test('an attempt that takes too long is ended and repeated', async (t) => {
  const { model, fastpaca } = await setup(t, { timeoutMs: 500 });
  model.log('a');
  model.intercept = () => model.seen.length === 1; // never answers the first
  assert.equal((await fastpaca.getConversation('a')).id, 'a');
  assert(model.seen.length >= 2, `${model.seen.length}`); // more on a slow machine
  model.intercept = (_, res) => (res.writeHead(200, { 'content-type': 'application/json' }).write('{'), true); // nor ends
  const error = await failure(fastpaca.getConversation('a', { retries: 0, timeoutMs: 30 }));
  assert.deepEqual([error.code, error.retryable], ['timeout', true]);
});

test('an aborted signal ends a call before, while and between it is sent', async (t) => {
  const { model, fastpaca } = await setup(t);
  model.log('a');
  const before = await failure(fastpaca.getConversation('a', { signal: AbortSignal.abort('enough') }));
  assert.deepEqual([before.code, before.name, before.cause, model.seen.length], ['aborted', 'AbortError', 'enough', 0]);

  const control = new AbortController();
  model.intercept = () => (control.abort(), true);
  assert.equal((await failure(fastpaca.getConversation('a', { signal: control.signal }))).code, 'aborted');

  const between = new AbortController();
  model.intercept = (_, res) => {
    setTimeout(() => between.abort(), 20);
    return refuse(res, 503, 'overloaded', {}, { 'retry-after': '20' });
  };
  assert.equal((await failure(fastpaca.getConversation('a', { signal: between.signal }))).code, 'aborted');
});

test('ids of any kind arrive as they are', async (t) => {
  const { model, fastpaca } = await setup(t);
  for (const id of ['a/b', 'tail', '../x', '🦙 & co?#%', 'ü'.repeat(200), '...', ' ', '%2F', 'a:b;c=d,e@f+g']) {
    await fastpaca.conversation(id, {});
    assert(model.logs.has(id), id);
    await fastpaca.ref(id).append(hello);
    assert.equal((await fastpaca.ref(id).tail()).messages.length, 1);
  }
  for (const id of ['', '.', '..', '\ud800', undefined as unknown as string]) {
    assert.throws(() => fastpaca.ref(id), { code: 'invalid_argument' }, JSON.stringify(id));
    assert.equal((await failure(fastpaca.conversation(id))).code, 'invalid_argument');
  }
});

test('base addresses', async (t) => {
  const { model } = await setup(t);
  model.log('a');
  for (const baseUrl of [model.url, `${model.url}/`, `${model.url}/v1`, `${model.url}/v1//`, new URL(model.url)]) {
    await createClient({ baseUrl }).getConversation('a');
    assert.equal(model.seen.at(-1)!.path, '/v1/conversations/a');
  }
  for (const baseUrl of ['', 'localhost:4000', 'nonsense', 'ftp://a', 'http://a?b=c']) {
    assert.throws(() => createClient({ baseUrl }), { code: 'invalid_argument' }, baseUrl);
  }
});

test('headers and tokens; a function is asked every time', async (t) => {
  let n = 0;
  const { model, fastpaca } = await setup(t, { apiKey: async () => `t${++n}`, headers: { 'x-tenant': 'acme' } });
  model.log('a');
  model.intercept = (seen, res) => seen.headers.authorization === 'Bearer t1' && refuse(res, 503, 'unavailable');
  await fastpaca.getConversation('a', { minSeq: 4, consistency: 'linearizable' });
  const { headers, query } = model.seen.at(-1)!;
  assert.deepEqual([headers.authorization, headers['x-tenant'], headers['x-fastpaca-min-seq'], query.get('consistency')], ['Bearer t2', 'acme', '4', 'linearizable']);
});

test('pages', async (t) => {
  const { model, fastpaca } = await setup(t);
  model.append('a', ...Array.from({ length: 25 }, (_, i) => `${i + 1}`));
  const conv = fastpaca.ref('a');
  const seqs: number[] = [];
  for await (const m of conv.messages({ from: 3, limit: 10 })) seqs.push(m.seq);
  assert.deepEqual(seqs, Array.from({ length: 23 }, (_, i) => i + 3));
  assert.deepEqual((await conv.tail({ limit: 3, offset: 3 })).messages.map((m) => m.seq), [20, 21, 22]);
  assert.deepEqual((await conv.tail({ limit: 2, before: 10 })).messages.map((m) => m.seq), [8, 9]);
  model.log('a').earliest = 7;
  const expired = await failure(conv.messages().next());
  assert.deepEqual([expired.code, expired.earliestSeq], ['cursor_expired', 7]);

  for (const id of ['c1', 'c2', 'c3', 'c4', 'c5', 'd']) model.log(id);
  const ids: string[] = [];
  for await (const c of fastpaca.conversations({ prefix: 'c' })) ids.push(c.id);
  assert.deepEqual(ids, ['c1', 'c2', 'c3', 'c4', 'c5']);
});

test('numbers beyond 2^53 are rounded by JSON, and not by a codec of your own', async (t) => {
  const big = '{"type":"n","value":12345678901234567890}';
  const model = await Model.start(t);
  model.log('a');
  model.intercept = (_, res) => (
    res
      .writeHead(200, { 'content-type': 'application/json' })
      .end(`{"messages":[{"seq":1,"role":"user","parts":[${big}],"metadata":{},"token_count":0,"inserted_at":""}]}`),
    true
  );
  const plain = await createClient({ baseUrl: model.url }).ref('a').tail<{ type: string; value: number }>();
  assert.equal(plain.messages[0]!.parts[0]!.value, 12345678901234567000);
  const json = {
    parse: (text: string) => JSON.parse(text.replace(/:(\d{17,})/g, ':"$1n"'), (_, v) => (/^\d+n$/.test(v) ? BigInt(v.slice(0, -1)) : v)),
    stringify: (value: unknown) => JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}n` : v)).replace(/"(\d+)n"/g, '$1'),
  };
  const conv = createClient({ baseUrl: model.url, json }).ref('a');
  const kept = await conv.tail<{ type: string; value: bigint }>();
  assert.equal(kept.messages[0]!.parts[0]!.value, 12345678901234567890n);
  model.intercept = (_, res) => answer(res, 201, { seq: 2, version: 2, token_count: 0 });
  await conv.append({ role: 'user', parts: kept.messages[0]!.parts });
  assert.match(model.seen.at(-1)!.body, /12345678901234567890\}/);
});

test('what is not JSON is not sent', async (t) => {
  const { model, fastpaca } = await setup(t);
  const parts = [{ type: 'n', value: 1n }];
  assert.equal((await failure(fastpaca.ref('a').append({ role: 'user', parts }))).code, 'invalid_argument');
  assert.equal(model.seen.length, 0);
});
