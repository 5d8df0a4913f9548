// The TypeScript SDK as it is published, against real processes.
import { Rest, freshId, numbers, ok, same } from './check.mjs';

const hello = (text) => ({ role: 'user', parts: [{ type: 'text', text }] });

const take = async (stream, n) => {
  const seqs = [];
  for await (const message of stream) {
    seqs.push(message.seq);
    if (seqs.length >= n) break;
  }
  return seqs;
};

/** Follows a conversation both ways at once, through the same disturbance. */
const follow = async (env, disturb) => {
  const conv = await env.client().conversation(freshId(), {});
  const total = 150;
  const followed = ['websocket', 'sse'].map((transport) => take(conv.subscribe({ from: 1, transport }), total));
  for (let n = 1; n <= total; n++) {
    if (n === 40 || n === 100) await disturb(n);
    await conv.append(hello(String(n)), { timeoutMs: 15_000, retries: 20 });
  }
  for (const seqs of followed) same(await seqs, numbers(1, total));
};

export const tests = {
  async 'the code of the README'(env) {
    const { createClient } = env.sdk;
    const fastpaca = createClient({ baseUrl: `${env.base}/v1` });
    const id = freshId('chat');

    const conv = await fastpaca.conversation(id, {
      metadata: { user_id: 'u_123', channel: 'web' }
    });
    await conv.append({ role: 'user', parts: [{ type: 'text', text: 'Hello!' }] });
    await conv.append({ role: 'assistant', parts: [{ type: 'text', text: 'Hi there!' }] });
    const { messages } = await conv.tail({ limit: 100 });
    const { messages: replay } = await conv.replay({ from: 50, limit: 50 });

    same(messages.map((m) => [m.seq, m.role, m.parts]), [
      [1, 'user', [{ type: 'text', text: 'Hello!' }]],
      [2, 'assistant', [{ type: 'text', text: 'Hi there!' }]],
    ]);
    same(replay, []);
    same((await fastpaca.getConversation(id)).metadata, { user_id: 'u_123', channel: 'web' });
    await fastpaca.tombstoneConversation(id);
    const error = await conv.append(hello('late')).catch((e) => e);
    same([error instanceof env.sdk.FastpacaError, error.status, error.code, error.retryable], [true, 410, 'conversation_tombstoned', false]);
  },

  async 'ids, revisions, guards'(env) {
    const conv = await env.client().conversation(freshId('a/b 🦙 ?#%'), {});
    const first = await conv.append({ id: 'm1', ...hello('one') });
    const again = await conv.append({ id: 'm1', ...hello('one') });
    const revised = await conv.append({ id: 'm1', ...hello('two') });
    same([first.seq, again.seq, again.duplicate, revised.seq, revised.revises], [1, 1, true, 2, 1]);
    const conflict = await conv.append(hello('x'), { ifVersion: 0 }).catch((e) => e);
    same([conflict.code, conflict.currentVersion], ['conflict', 2]);
    const batch = await conv.append([hello('3'), hello('4')], { ifVersion: 2 });
    same([batch.seq, batch.last_seq, batch.version], [3, 4, 3]);
    const seqs = [];
    for await (const m of conv.messages({ limit: 2 })) seqs.push(m.seq);
    same(seqs, [1, 2, 3, 4]);
    same((await conv.tail({ limit: 2, before: 4 })).messages.map((m) => m.seq), [2, 3]);
    ok((await conv.get({ consistency: 'linearizable', minSeq: 4 })).last_seq === 4, 'read what was written');
  },

  async 'a conversation that is not there'(env) {
    const conv = env.client().ref(freshId());
    const calls = [
      () => conv.get(),
      () => conv.append(hello('x')),
      () => conv.subscribe({ from: 1 }).next(),
      () => conv.subscribe({ from: 1, transport: 'sse' }).next(),
      () => conv.subscribe().next(),
    ];
    for (const call of calls) {
      const error = await call().then(() => undefined, (e) => e);
      same(error?.code, 'conversation_not_found');
    }
  },

  async 'from now, tombstone, abort'(env) {
    for (const transport of ['websocket', 'sse']) {
      const conv = await env.client().conversation(freshId(), {});
      await conv.append(hello('old'));
      const events = conv.events({ transport });
      const types = [];
      for await (const event of events) {
        types.push(event.type === 'message' ? event.seq : event.type);
        if (event.type === 'caught_up') await conv.append(hello('new'));
        if (event.type === 'message') await conv.tombstone();
      }
      same(types, ['caught_up', 2, 'tombstone'], transport);
      const control = new AbortController();
      const open = await env.client().conversation(freshId(), {});
      const waiting = open.subscribe({ transport, signal: control.signal }).next().catch((e) => e);
      setTimeout(() => control.abort(), 50);
      same((await waiting).code, 'aborted');
    }
  },

  async 'the generated client'(env) {
    const { client, putConversation, appendMessages, tailMessages, replayMessages, listConversations, tombstoneConversation, getConversation } = env.raw;
    client.setConfig({ baseUrl: `${env.base}/v1` });
    const id = freshId('raw/🦙');
    const path = { id };
    same((await putConversation({ path, body: { metadata: { a: 1 } } })).data.metadata, { a: 1 });
    const { response, data } = await appendMessages({ path, body: { message: { id: 'm', ...hello('one') } } });
    same([response.status, data.seq], [201, 1]);
    same((await appendMessages({ path, body: { message: { id: 'm', ...hello('one') } } })).response.status, 200);
    same((await appendMessages({ path, body: { messages: [hello('2'), hello('3')], if_version: 1 } })).data.last_seq, 3);
    same((await appendMessages({ path, body: { message: hello('x'), if_version: 0 } })).error.current_version, 2);
    same((await tailMessages({ path, query: { limit: 2 } })).data.messages.map((m) => m.seq), [2, 3]);
    same((await replayMessages({ path, query: { from: 2, limit: 1 } })).data.next_from, 3);
    same((await listConversations({ query: { prefix: id } })).data.conversations.map((c) => c.id), [id]);
    same((await tombstoneConversation({ path })).response.status, 204);
    same((await getConversation({ path })).data.tombstoned, true);
    same((await getConversation({ path: { id: freshId() } })).error.error, 'conversation_not_found');
  },

  async 'subscribe over a killed and a restarted router: each message once and in order'(env) {
    await follow(env, (n) => env.control(n === 40 ? 'router/kill' : 'router/restart'));
  },

  async 'subscribe over killed leaders: each message once and in order'(env) {
    await follow(env, () => env.control('data/kill'));
  },
};

export const prepare = (env) => {
  env.rest = new Rest(env.base);
  env.client = (options) => env.sdk.createClient({ baseUrl: env.base, ...(env.WebSocket && { WebSocket: env.WebSocket }), ...options });
};
