import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { WebSocket } from 'ws';
import { FastpacaError, createClient, type ClientOptions, type StreamEvent, type SubscribeOptions } from '../src/index.js';
import { Model, refuse } from './model.js';

const transports = ['websocket', 'sse'] as const;

async function setup(t: TestContext, options: ClientOptions = {}) {
  const model = await Model.start(t);
  const conv = createClient({ baseUrl: model.url, WebSocket, ...options }).ref('a');
  return { model, conv };
}

const until = async (met: () => boolean) => {
  while (!met()) await new Promise((done) => setImmediate(done));
};

/** Reads n messages, and checks that they are what comes next. */
async function take(stream: AsyncIterator<{ seq: number }>, from: number, n: number) {
  for (let seq = from; seq < from + n; seq++) {
    const { value, done } = await stream.next();
    assert(!done, `ended before ${seq}`);
    assert.equal(value.seq, seq);
  }
}

const thrown = async (promise: Promise<unknown>): Promise<FastpacaError> => {
  const error = await promise.then(() => assert.fail('it succeeded'), (e: unknown) => e);
  assert(error instanceof FastpacaError, String(error));
  return error;
};

for (const transport of transports) {
  const named = (what: string) => `${transport}: ${what}`;

  test(named('what is there, then live, then the end'), async (t) => {
    const { model, conv } = await setup(t);
    model.append('a', 'one', 'two', 'three');
    const seen: string[] = [];
    for await (const m of conv.subscribe<{ type: string; text: string }>({ from: 2, transport })) {
      seen.push(m.parts[0]!.text);
      if (m.seq === 3) model.append('a', 'four');
      if (m.seq === 4) model.tombstone('a');
    }
    assert.deepEqual(seen, ['two', 'three', 'four']);
    await until(() => model.followers.size === 0);
  });

  test(named('from now on, and break'), async (t) => {
    const { model, conv } = await setup(t);
    model.append('a', 'old');
    const stream = conv.subscribe({ transport });
    const first = stream.next();
    await until(() => model.followers.size === 1);
    model.append('a', 'new');
    assert.equal((await first).value?.seq, 2);
    await stream.return();
    await until(() => model.followers.size === 0);
    assert.deepEqual(await stream.next(), { done: true, value: undefined });
  });

  test(named('return ends a next that waits'), async (t) => {
    const { model, conv } = await setup(t);
    model.log('a');
    const stream = conv.subscribe({ from: 1, transport });
    const waiting = stream.next();
    await until(() => model.followers.size === 1);
    await stream.return();
    assert.equal((await waiting).done, true);
    await until(() => model.followers.size === 0);
  });

  test(named('an aborted signal'), async (t) => {
    const { model, conv } = await setup(t);
    model.log('a');
    const control = new AbortController();
    const waiting = thrown(conv.subscribe({ from: 1, transport, signal: control.signal }).next());
    await until(() => model.followers.size === 1);
    control.abort();
    assert.deepEqual([(await waiting).code, (await waiting).name], ['aborted', 'AbortError']);
    const early = await thrown(conv.subscribe({ transport, signal: AbortSignal.abort() }).next());
    assert.equal(early.code, 'aborted');
    await until(() => model.followers.size === 0);
  });

  test(named('a conversation that is not there'), async (t) => {
    const { conv } = await setup(t);
    for (const from of [undefined, 1]) {
      const error = await thrown(conv.subscribe({ from, transport }).next());
      assert.deepEqual([error.code, error.status], ['conversation_not_found', 404]);
    }
  });

  test(named('broken connections'), async (t) => {
    const { model, conv } = await setup(t);
    model.append('a', '1', '2');
    const stream = conv.events({ from: 1, transport });
    const types: string[] = [];
    const seqs: number[] = [];
    for await (const event of stream) {
      types.push(event.type);
      if (event.type === 'message') seqs.push(event.seq);
      if (event.type === 'caught_up' && seqs.length < 5) {
        model.cut();
        model.append('a', 'x');
      }
      if (event.type === 'reconnecting') assert.equal((event.error as FastpacaError).retryable, true);
      if (seqs.length === 5) break;
    }
    assert.deepEqual(seqs, [1, 2, 3, 4, 5]);
    assert.deepEqual(types.slice(0, 5), ['message', 'message', 'caught_up', 'reconnecting', 'message']);
  });

  test(named('frames that are repeated, lost or out of order'), async (t) => {
    const { model, conv } = await setup(t);
    model.append('a', ...Array.from({ length: 40 }, (_, i) => `${i}`));
    let n = 0;
    model.mangle = (frame) => [[frame], [frame, frame], [], [{ ...frame, type: 'message_of_another_time' }, frame]][n++ % 4]!;
    const stream = conv.subscribe({ from: 1, transport });
    await take(stream, 1, 38);
    await stream.return();
  });

  test(named('a gap'), async (t) => {
    const { model, conv } = await setup(t);
    model.append('a', ...Array.from({ length: 9 }, (_, i) => `${i}`));
    model.log('a').earliest = 5;
    const error = await thrown(conv.subscribe({ from: 2, transport }).next());
    assert.deepEqual([error.code, error.expectedSeq, error.earliestSeq, error.retryable], ['gap', 2, 5, false]);

    const gaps: object[] = [];
    const stream = conv.subscribe({ from: 2, transport, onGap: (gap) => gaps.push(gap) });
    await take(stream, 5, 5);
    assert.deepEqual(gaps, [{ expected: 2, actual: 5 }]);
    await stream.return();

    const events = conv.events({ from: 2, transport });
    assert.deepEqual((await events.next()).value, { type: 'gap', expected: 2, actual: 5 });
    await events.return();
  });

  test(named('a gap that the archive can fill is none'), async (t) => {
    const { model, conv } = await setup(t);
    model.append('a', ...Array.from({ length: 9 }, (_, i) => `${i}`));
    model.mangle = (frame) => (frame.seq === 1 ? [{ type: 'gap', expected: 1, actual: 7 }] : frame.seq < 7 ? [] : [frame]);
    const stream = conv.subscribe({ from: 1, transport });
    await take(stream, 1, 9);
    await stream.return();
  });

  test(named('a server that goes and does not come back'), async (t) => {
    const { model, conv } = await setup(t, { retries: 1 });
    model.append('a', '1');
    const options: SubscribeOptions = { from: 1, transport, reconnectMs: 1 };
    const stream = conv.subscribe(options);
    await take(stream, 1, 1);
    await until(() => model.followers.size === 1);
    model.stop();
    const error = await thrown(stream.next());
    assert.deepEqual([error.code, error.retryable], ['network', true]);
    assert.equal((await thrown(conv.subscribe(options).next())).code, 'network');
  });

  test(named('a proxy that answers'), async (t) => {
    const { model, conv } = await setup(t, { retries: 1 });
    model.webSockets = false;
    model.intercept = (_, res) => (res.writeHead(200, { 'content-type': 'text/html' }).end('<html>'), true);
    assert.equal((await thrown(conv.subscribe({ from: 1, transport }).next())).code, 'unexpected_response');
    model.intercept = (_, res) => refuse(res, 503, 'unavailable');
    assert.equal((await thrown(conv.subscribe({ from: 1, transport }).next())).code, 'unavailable');
  });

  test(named('a frame that is not JSON'), async (t) => {
    const { model, conv } = await setup(t, { json: { parse: (s) => JSON.parse(s.replace('"caught_up"', '')), stringify: JSON.stringify } });
    model.log('a');
    assert.equal((await thrown(conv.subscribe({ from: 1, transport }).next())).code, 'unexpected_response');
  });

  for (const seed of [1, 2, 3]) {
    test(named(`random faults, seed ${seed}`), async (t) => {
      const { model, conv } = await setup(t, { retries: 20 });
      const random = generator(seed);
      model.append('a', 'first');
      model.mangle = (frame) => {
        const dice = random();
        if (dice < 0.05) setImmediate(() => model.cut());
        if (dice < 0.15) return [];
        return dice < 0.3 ? [frame, frame] : [frame];
      };
      let total = 1;
      const appending = setInterval(() => {
        const n = Math.floor(random() * 4);
        if (total + n <= 60) model.append('a', ...Array.from({ length: n }, () => `${++total}`));
        else if (total < 60) model.append('a', `${++total}`);
      }, 2);
      t.after(() => clearInterval(appending));
      const stream = conv.subscribe({ from: 1, transport });
      // The last may be dropped for good: nothing comes after it.
      const repeat = setInterval(() => total >= 60 && model.cut(), 100);
      t.after(() => clearInterval(repeat));
      await take(stream, 1, 60);
      await stream.return();
    });
  }
}

/** Mulberry32: the same numbers for the same seed. */
function generator(seed: number) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

test('auto goes over to events when WebSockets do not get through', async (t) => {
  const { model, conv } = await setup(t);
  model.append('a', '1', '2');
  model.webSockets = false;
  const stream = conv.subscribe({ from: 1 });
  await take(stream, 1, 2);
  assert.equal(model.seen.filter((s) => s.path.endsWith('/events')).length, 1);
  await stream.return();
});

test('auto takes events when there are headers to send, or no WebSocket', async (t) => {
  const { model, conv } = await setup(t, { apiKey: 'secret' });
  model.append('a', '1');
  const stream = conv.subscribe({ from: 1 });
  await take(stream, 1, 1);
  assert.equal(model.seen[0]!.headers.authorization, 'Bearer secret');
  await stream.return();
});

test('a WebSocket where there is none', async (t) => {
  const { model } = await setup(t);
  const conv = createClient({ baseUrl: model.url, WebSocket: undefined }).ref('a');
  if (globalThis.WebSocket) return t.skip('this Node has one');
  assert.equal((await thrown(conv.subscribe({ from: 1, transport: 'websocket' }).next())).code, 'invalid_argument');
});

test('a slow reader of a WebSocket is cut off at a bound, and misses nothing', async (t) => {
  const { model, conv } = await setup(t);
  const big = 'x'.repeat(1 << 20);
  model.append('a', 'small', ...Array.from({ length: 20 }, () => big));
  const events = conv.events({ from: 1, transport: 'websocket' });
  const first = (await events.next()).value as StreamEvent;
  assert.equal(first.type, 'message');
  await until(() => model.followers.size === 0); // the client has closed it
  for (let seq = 2; seq <= 21; ) {
    const event = (await events.next()).value as StreamEvent;
    assert.notEqual(event.type, 'reconnecting');
    if (event.type === 'message') assert.equal(event.seq, seq++);
  }
  await events.return();
});

for (const transport of transports) {
  test(`${transport}: a connection that falls silent is not trusted`, async (t) => {
    const { model, conv } = await setup(t);
    model.append('a', '1');
    let arriving = false;
    model.mangle = (frame) => (arriving || frame.type === 'caught_up' ? [frame] : []);
    const events = conv.events({ from: 1, transport, idleMs: 250 });
    const types: string[] = [];
    for await (const event of events) {
      types.push(event.type);
      if (event.type === 'reconnecting') arriving = true;
      if (event.type === 'message') break;
    }
    // On a slow machine more than one connection falls silent.
    assert.deepEqual([...new Set(types)].sort(), ['caught_up', 'message', 'reconnecting']);
    assert.equal(types.at(-1), 'message');
  });
}
