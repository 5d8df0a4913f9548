// The npm package phoenix, unmodified, as the documented client code uses it.
import { Rest, freshId, numbers, ok, same, until, within } from './check.mjs';

/** What a test does with one socket, and what it has to clean up. */
class Client {
  constructor(env, options = {}) {
    const { Socket } = env.phoenix;
    this.errors = [];
    this.socket = new Socket(`${env.base.replace(/^http/, 'ws')}/socket`, { ...env.socketOptions, ...options });
    this.socket.onError((error) => this.errors.push(error));
    this.opened = new Promise((open) => this.socket.onOpen(open));
    this.socket.connect();
    env.cleanups.push(() => new Promise((done) => this.socket.disconnect(done)));
  }

  /** A channel that keeps everything that arrives on it. */
  channel(id, params) {
    const channel = this.socket.channel(`conversation:${id}`, params);
    const heard = { messages: [], tombstones: 0, gaps: [], closed: 0, failed: 0, channel };
    channel.on('message', (payload) => heard.messages.push(payload));
    channel.on('tombstone', () => heard.tombstones++);
    channel.on('gap', (payload) => heard.gaps.push(payload));
    channel.onClose(() => heard.closed++);
    channel.onError(() => heard.failed++);
    return heard;
  }

  async join(id, params) {
    const heard = this.channel(id, params);
    heard.response = await reply('join', heard.channel.join());
    return heard;
  }
}

const reply = (what, push) =>
  within(
    `${what} is answered`,
    new Promise((resolve, reject) => {
      push.receive('ok', resolve);
      push.receive('error', (response) => reject(Object.assign(new Error(`${what}: ${JSON.stringify(response)}`), { response })));
      push.receive('timeout', () => reject(new Error(`${what}: timeout`)));
    }),
  );

const refused = async (what, push) => {
  try {
    await reply(what, push);
  } catch (error) {
    ok(error.response, error.message);
    return error.response;
  }
  throw new Error(`${what} was accepted`);
};

const seqs = (heard) => heard.messages.map((m) => m.seq);
const arrived = (heard, n) => until(`${n} messages, have ${seqs(heard)}`, () => heard.messages.length >= n);

/** Lets what should not come have its chance to come: an answered round trip behind it. */
const settle = async (client) => {
  await reply('a push', client.socket.channels[0].push('anything', {})).catch(() => {});
};

export const tests = {
  async 'join, message, tombstone'(env) {
    const id = await env.rest.create(freshId());
    const client = new Client(env, { params: { token: 'abc', nested: { x: 1 } } });
    const heard = await client.join(id);
    await env.rest.append(id, 'one', 'two');
    await arrived(heard, 2);
    const [{ type, seq, version, message }] = heard.messages;
    same([type, seq, version], ['message', 1, 1]);
    same([message.seq, message.role, message.parts], [1, 'user', [{ type: 'text', text: 'one' }]]);
    await env.rest.tombstone(id);
    await until('the tombstone', () => heard.tombstones === 1);
    await settle(client);
    same([seqs(heard), heard.tombstones, heard.gaps, heard.failed], [[1, 2], 1, [], 0]);
  },

  async 'a conversation is joined before it exists'(env) {
    const client = new Client(env);
    const id = freshId();
    const heard = await client.join(id);
    await env.rest.create(id);
    await env.rest.append(id, 'one');
    await arrived(heard, 1);
    same(seqs(heard), [1]);
  },

  async 'without from a join brings only what is new'(env) {
    const id = await env.rest.create(freshId());
    await env.rest.append(id, 'old');
    const heard = await new Client(env).join(id);
    await env.rest.append(id, 'new');
    await arrived(heard, 1);
    same(seqs(heard), [2]);
  },

  async 'from brings what there was, and then what is new'(env) {
    const id = await env.rest.create(freshId());
    await env.rest.append(id, '1', '2', '3', '4');
    const client = new Client(env);
    const [all, some, cursor] = [await client.join(id, { from: 0 }), await new Client(env).join(id, { from: 3 }), await new Client(env).join(id, { cursor: 3 })];
    await env.rest.append(id, '5');
    await arrived(all, 5);
    await arrived(some, 3);
    await arrived(cursor, 2);
    same([seqs(all), seqs(some), seqs(cursor)], [[1, 2, 3, 4, 5], [3, 4, 5], [4, 5]]);
  },

  async 'after leave nothing comes, and one may join again'(env) {
    const id = await env.rest.create(freshId());
    const [client, other] = [new Client(env), new Client(env)];
    const heard = await client.join(id);
    const watching = await other.join(id);
    await env.rest.append(id, '1');
    await arrived(heard, 1);
    await reply('leave', heard.channel.leave());
    await env.rest.append(id, '2');
    await arrived(watching, 2);
    const again = await client.join(id, { from: 2 });
    await env.rest.append(id, '3');
    await arrived(again, 2);
    await arrived(watching, 3);
    same([seqs(heard), seqs(again), seqs(watching)], [[1], [2, 3], [1, 2, 3]]);
    same(heard.closed > 0, true, 'closed');
  },

  async 'two conversations on one socket, and one on two'(env) {
    const [a, b] = [await env.rest.create(freshId('a')), await env.rest.create(freshId('b'))];
    const client = new Client(env);
    const [onA, onB, second] = [await client.join(a), await client.join(b), await new Client(env).join(a)];
    await env.rest.append(a, '1', '2');
    await env.rest.append(b, '1');
    await arrived(onA, 2);
    await arrived(onB, 1);
    await arrived(second, 2);
    same([seqs(onA), seqs(onB), seqs(second)], [[1, 2], [1], [1, 2]]);
  },

  async 'of two channels on one topic the last counts'(env) {
    const id = await env.rest.create(freshId());
    const client = new Client(env);
    const first = await client.join(id);
    const second = await client.join(id);
    await env.rest.append(id, '1');
    await arrived(second, 1);
    same([seqs(first), seqs(second)], [[], [1]]);
  },

  async 'ids of any kind'(env) {
    const client = new Client(env);
    for (const kind of ['with space', 'a/b', 'a:b:c', 'ünï-🦙', '%2F', '?x=1#y']) {
      const id = await env.rest.create(freshId(kind));
      const heard = await client.join(id);
      await env.rest.append(id, '1');
      await arrived(heard, 1);
      same(seqs(heard), [1], kind);
      await reply('leave', heard.channel.leave());
    }
  },

  async 'what is refused says why'(env) {
    const client = new Client(env);
    const odd = client.socket.channel('nope:1');
    same((await refused('an odd topic', odd.join())).reason, 'unmatched topic');
    odd.leave();
    const bad = client.channel(freshId(), { from: 'x' }).channel;
    ok((await refused('an odd cursor', bad.join())).reason, 'a reason');
    bad.leave();
    const heard = await client.join(await env.rest.create(freshId()));
    same((await refused('a push', heard.channel.push('new_message', { text: 'hi' }))).reason, 'unsupported event');
    await env.rest.append(heard.channel.topic.slice('conversation:'.length), '1');
    await arrived(heard, 1); // the channel has survived
  },

  async 'binary pushes do not hurt'(env) {
    const id = await env.rest.create(freshId());
    const client = new Client(env);
    const heard = await client.join(id);
    heard.channel.push('upload', new Uint8Array([1, 2, 3]).buffer);
    await env.rest.append(id, '1');
    await arrived(heard, 1);
    same(heard.failed, 0);
  },

  async 'heartbeats are answered'(env) {
    const client = new Client(env, { heartbeatIntervalMs: 50 });
    await within('the socket opens', client.opened);
    let closed = 0;
    client.socket.onClose(() => closed++);
    let beats = 0;
    client.socket.onMessage(({ topic, event }) => void (beats += topic === 'phoenix' && event === 'phx_reply'));
    await until('five answers', () => beats >= 5);
    same([closed, client.socket.isConnected()], [0, true]);
  },

  async 'the first version of the protocol'(env) {
    const id = await env.rest.create(freshId());
    const client = new Client(env, {
      vsn: '1.0.0',
      encode: (message, done) => done(JSON.stringify(message)),
      decode: (text, done) => done(JSON.parse(text)),
    });
    const heard = await client.join(id, { from: 1 });
    await env.rest.append(id, '1', '2');
    await arrived(heard, 2);
    await reply('leave', heard.channel.leave());
    same(seqs(heard), [1, 2]);
  },

  async 'a version that is not spoken is refused, and others are not disturbed'(env) {
    const client = new Client(env, { vsn: '3.0.0' });
    await until('an error', () => client.errors.length > 0);
    same(client.socket.isConnected(), false);
    same((await new Client(env).join(await env.rest.create(freshId()))).failed, 0);
  },

  async 'a frame that is too large costs its sender the connection, and nobody else'(env) {
    const id = await env.rest.create(freshId());
    const [client, other] = [new Client(env), await new Client(env).join(id)];
    let last = 0;
    const heard = client.channel(id, () => ({ from: last + 1 }));
    heard.channel.on('message', ({ seq }) => (last = seq));
    await reply('join', heard.channel.join());
    const closed = new Promise((done) => client.socket.onClose(({ code }) => done(code)));
    heard.channel.push('big', { text: 'x'.repeat(1 << 20) });
    same(await within('it is closed', closed), 1009);
    await env.rest.append(id, '1', '2');
    await arrived(heard, 2); // it has come back
    await arrived(other, 2);
    same([seqs(heard), seqs(other), other.failed], [[1, 2], [1, 2], 0]);
  },

  async 'a token as a subprotocol'(env) {
    if (!env.phoenix.version.startsWith('1.8')) return 'phoenix before 1.8 has no authToken';
    const client = new Client(env, { authToken: 'a-tøken/+' });
    await within('the socket opens', client.opened);
    await client.join(await env.rest.create(freshId()));
    return undefined;
  },

  async 'a restarted router: channels come back and go on where they were'(env) {
    const id = await env.rest.create(freshId());
    const client = new Client(env);
    let last = 0;
    const heard = client.channel(id, () => ({ from: last + 1 }));
    heard.channel.on('message', ({ seq }) => (last = seq));
    let joins = 0;
    await reply('join', heard.channel.join().receive('ok', () => joins++));
    await env.rest.append(id, '1', '2');
    await arrived(heard, 2);
    for (const [how, n] of [['kill', 4], ['restart', 6]]) {
      await env.control(`router/${how}`);
      await env.rest.append(id, `${n - 1}`, `${n}`);
      await arrived(heard, n);
    }
    same(seqs(heard), numbers(1, 6));
    same(joins >= 3, true, 'it has joined again');
    await reply('leave', heard.channel.leave());
  },

  async 'a restarted router: hundreds of sockets come back at once'(env) {
    const id = await env.rest.create(freshId());
    const all = await Promise.all(
      numbers(1, 200).map(async () => {
        let last = 0;
        const heard = new Client(env).channel(id, () => ({ from: last + 1 }));
        heard.channel.on('message', ({ seq }) => (last = seq));
        await reply('join', heard.channel.join());
        return heard;
      }),
    );
    await env.rest.append(id, '1');
    await until('all have it', () => all.every((heard) => heard.messages.length === 1));
    await env.control('router/restart');
    await env.rest.append(id, '2');
    await until('all have the next', () => all.every((heard) => heard.messages.length === 2));
    for (const heard of all) same(seqs(heard), [1, 2]);
  },

  async 'a killed leader: each message once and in order'(env) {
    const id = await env.rest.create(freshId());
    const client = new Client(env);
    let last = 0;
    const heard = client.channel(id, () => ({ from: last + 1 }));
    heard.channel.on('message', ({ seq }) => (last = seq));
    await reply('join', heard.channel.join());
    const appending = env.rest.append(id, ...numbers(1, 120).map(String));
    await arrived(heard, 10);
    await env.control('data/kill');
    await appending;
    await arrived(heard, 120);
    same(seqs(heard), numbers(1, 120));
  },
};

export const prepare = (env) => {
  env.rest = new Rest(env.base);
};
