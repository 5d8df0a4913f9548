// The server's own transports with nothing but what browsers have.
import { Rest, freshId, numbers, ok, same, until, within } from './check.mjs';

const path = (id) => `/v1/conversations/${encodeURIComponent(id)}`;

function listen(env, id, query = '') {
  const socket = new env.WebSocket(`${env.base.replace(/^http/, 'ws')}${path(id)}/stream${query}`);
  const heard = { frames: [], closed: undefined, socket };
  socket.addEventListener('message', ({ data }) => heard.frames.push(JSON.parse(data)));
  socket.addEventListener('close', (event) => (heard.closed = event.code));
  socket.addEventListener('error', () => {});
  env.cleanups.push(() => socket.close());
  return heard;
}

const messages = (heard) => heard.frames.filter((f) => f.type === 'message').map((f) => f.seq);

export const tests = {
  async 'WebSocket: what there was, caught_up, live, tombstone'(env) {
    const id = await env.rest.create(freshId('ü/🦙'));
    await env.rest.append(id, '1', '2');
    const heard = listen(env, id, '?from=1');
    await until('caught up', () => heard.frames.some((f) => f.type === 'caught_up'));
    await env.rest.append(id, '3');
    await env.rest.tombstone(id);
    await until('the tombstone', () => heard.frames.at(-1)?.type === 'tombstone');
    same(heard.frames.map((f) => `${f.type} ${f.seq ?? ''}`.trim()), ['message 1', 'message 2', 'caught_up 2', 'message 3', 'tombstone']);
    same(heard.frames[0].message.parts, [{ type: 'text', text: '1' }]);
  },

  async 'WebSocket: a conversation that is not there'(env) {
    const heard = listen(env, freshId());
    await until('it is refused', () => heard.closed !== undefined);
    same(heard.frames, []);
  },

  async 'WebSocket: a restart closes with 1012, and what is missed is replayed'(env) {
    const id = await env.rest.create(freshId());
    await env.rest.append(id, '1');
    const before = listen(env, id, '?from=1');
    await until('a message', () => messages(before).length === 1);
    await env.control('router/restart');
    await until('it is closed', () => before.closed !== undefined);
    same(before.closed, 1012);
    await env.rest.append(id, '2', '3');
    const after = listen(env, id, '?from=2');
    await until('the rest', () => messages(after).length === 2);
    same([messages(before), messages(after)], [[1], [2, 3]]);
  },

  async 'EventSource: what there was, live, tombstone'(env) {
    if (!env.EventSource) return 'there is no EventSource in Node';
    const id = await env.rest.create(freshId('ü/🦙'));
    await env.rest.append(id, '1', '2');
    const heard = events(env, id, '?from=1');
    await until('two messages', () => heard.ids.length === 2);
    await env.rest.append(id, '3');
    await env.rest.tombstone(id);
    await until('the tombstone', () => heard.tombstones === 1);
    heard.source.close();
    same([heard.seqs, heard.ids], [[1, 2, 3], ['1', '2', '3']]);
    return undefined;
  },

  async 'EventSource: comes back by itself after a restart, without hole or repeat'(env) {
    if (!env.EventSource) return 'there is no EventSource in Node';
    const id = await env.rest.create(freshId());
    const heard = events(env, id, '');
    await within('it opens', heard.opened);
    await until('it has caught up', () => heard.caughtUp > 0);
    for (const [how, n] of [['restart', 2], ['kill', 4]]) {
      await env.control(`router/${how}`);
      await env.rest.append(id, `${n - 1}`, `${n}`);
      await until(`${n} messages, have ${heard.seqs}`, () => {
        if (heard.source.readyState === heard.source.CLOSED) throw new Error('the browser has given up');
        return heard.seqs.length >= n;
      });
    }
    heard.source.close();
    same(heard.seqs, numbers(1, 4));
    return undefined;
  },
};

function events(env, id, query) {
  const source = new env.EventSource(`${env.base}${path(id)}/events${query}`);
  const heard = { source, seqs: [], ids: [], tombstones: 0, caughtUp: 0, opened: new Promise((done) => (source.onopen = done)) };
  source.addEventListener('message', ({ data, lastEventId }) => {
    heard.seqs.push(JSON.parse(data).seq);
    heard.ids.push(lastEventId);
  });
  source.addEventListener('caught_up', () => heard.caughtUp++);
  source.addEventListener('tombstone', () => heard.tombstones++);
  env.cleanups.push(() => source.close());
  return heard;
}

export const prepare = (env) => {
  env.rest = new Rest(env.base);
  ok(env.WebSocket, 'there is a WebSocket');
};
