// A server of the contract's shape in memory, which can be told to misbehave.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { WebSocket, WebSocketServer } from 'ws';

export interface Stored {
  seq: number;
  id?: string;
  role: string;
  parts: { type: string; [key: string]: unknown }[];
  metadata: Record<string, unknown>;
  token_count: number;
  inserted_at: string;
}

export interface Seen {
  method: string;
  url: string;
  path: string;
  query: URLSearchParams;
  headers: IncomingMessage['headers'];
  body: string;
}

/** Answers instead of the model when it returns true. */
export type Interceptor = (seen: Seen, res: ServerResponse) => boolean | void;

class Log {
  version = 0;
  tombstoned = false;
  metadata: Record<string, unknown> = {};
  /** What is below is gone. */
  earliest = 1;
  messages: Stored[] = [];
}

type Follower = { next: number; send(frame: object): void; close(): void };

export class Model {
  readonly logs = new Map<string, Log>();
  readonly seen: Seen[] = [];
  readonly followers = new Map<Follower, string>();
  intercept: Interceptor = () => false;
  /** Decides what becomes of a frame: null drops it, several repeat it. */
  mangle: (frame: any) => object[] = (frame) => [frame];
  webSockets = true;
  url = '';
  readonly #server = createServer((req, res) => void this.#serve(req, res));
  readonly #sockets = new WebSocketServer({ noServer: true });

  static async start(t: TestContext): Promise<Model> {
    const model = new Model();
    await new Promise<void>((done) => model.#server.listen(0, '127.0.0.1', done));
    model.url = `http://127.0.0.1:${(model.#server.address() as AddressInfo).port}`;
    model.#server.on('upgrade', (req, socket, head) => {
      if (!model.webSockets) return socket.destroy();
      const { id, query } = parse(req);
      if (!model.logs.has(id)) {
        socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
        return;
      }
      model.#sockets.handleUpgrade(req, socket, head, (ws) => model.#followWebSocket(ws, id, query));
    });
    t.after(() => model.stop());
    return model;
  }

  stop() {
    this.cut();
    this.#server.closeAllConnections();
    this.#server.close();
  }

  /** Breaks every stream. */
  cut() {
    for (const f of [...this.followers.keys()]) f.close();
  }

  log(id: string): Log {
    const log = this.logs.get(id) ?? new Log();
    this.logs.set(id, log);
    return log;
  }

  append(id: string, ...texts: string[]) {
    for (const text of texts) this.add(id, { role: 'user', parts: [{ type: 'text', text }] });
  }

  add(id: string, { metadata, token_count, ...message }: Partial<Stored>): Stored {
    const log = this.log(id);
    const stored = {
      ...(message as Stored),
      seq: log.messages.length + 1,
      metadata: metadata ?? {},
      token_count: token_count ?? 1,
      inserted_at: '2026-01-02T03:04:05.678901Z',
    };
    log.messages.push(stored);
    log.version++;
    this.#wake(id);
    return stored;
  }

  tombstone(id: string) {
    this.log(id).tombstoned = true;
    this.#wake(id);
  }

  #wake(id: string) {
    for (const [follower, of] of [...this.followers]) if (of === id) this.#advance(follower, this.log(id));
  }

  #advance(follower: Follower, log: Log) {
    const send = (frame: object) => {
      for (const f of this.mangle(frame)) follower.send(f);
    };
    if (follower.next < log.earliest) {
      send({ type: 'gap', expected: follower.next, actual: log.earliest });
      follower.next = log.earliest;
    }
    while (follower.next <= log.messages.length && this.followers.has(follower)) {
      const message = log.messages[follower.next++ - 1]!;
      send({ type: 'message', seq: message.seq, version: message.seq, message });
    }
    if (log.tombstoned) send({ type: 'tombstone' });
  }

  #follow(follower: Follower, id: string) {
    const log = this.log(id);
    this.followers.set(follower, id);
    this.#advance(follower, log);
    for (const f of this.mangle({ type: 'caught_up', seq: log.messages.length })) follower.send(f);
  }

  #followWebSocket(ws: WebSocket, id: string, query: URLSearchParams) {
    const follower: Follower = {
      next: Number(query.get('from') ?? this.log(id).messages.length + 1),
      send: (frame) => ws.send(JSON.stringify(frame)),
      close: () => {
        this.followers.delete(follower);
        ws.close(1012, 'restart');
      },
    };
    ws.on('close', () => this.followers.delete(follower));
    this.#follow(follower, id);
  }

  async #serve(req: IncomingMessage, res: ServerResponse) {
    const { id, path, query, rest } = parse(req);
    let body = '';
    for await (const chunk of req) body += chunk;
    const seen: Seen = { method: req.method!, url: req.url!, path, query, headers: req.headers, body };
    this.seen.push(seen);
    if (this.intercept(seen, res)) return;
    if (req.method === 'PUT') return this.#put(res, id, body);
    if (path === '/v1/conversations') return this.#list(res, query);
    const log = this.logs.get(id);
    if (!log) return refuse(res, 404, 'conversation_not_found');
    if (req.method === 'DELETE') {
      this.tombstone(id);
      return res.writeHead(204).end();
    }
    if (req.method === 'POST') return this.#append(res, id, log, JSON.parse(body));
    if (rest === '/tail') {
      const below = Number(query.get('before') ?? log.messages.length - Number(query.get('offset') ?? 0) + 1);
      const limit = Number(query.get('limit') ?? 100);
      return answer(res, 200, { messages: log.messages.slice(Math.max(0, below - 1 - limit), below - 1) });
    }
    if (rest === '/messages') return this.#replay(res, log, Number(query.get('from') ?? 1), Number(query.get('limit') ?? 100));
    if (rest === '/events') return this.#followEvents(res, id, query);
    return answer(res, 200, this.info(id));
  }

  info(id: string) {
    const log = this.log(id);
    const { version, tombstoned, metadata } = log;
    return { id, version, tombstoned, metadata, last_seq: log.messages.length, archived_seq: 0, head: '0'.repeat(64), created_at: '', updated_at: '' };
  }

  #put(res: ServerResponse, id: string, body: string) {
    const { metadata } = JSON.parse(body || '{}') as { metadata?: Record<string, unknown> };
    const log = this.log(id);
    if (metadata) log.metadata = metadata;
    return answer(res, 200, this.info(id));
  }

  #list(res: ServerResponse, query: URLSearchParams) {
    const ids = [...this.logs.keys()].filter((id) => id.startsWith(query.get('prefix') ?? '')).sort();
    const after = Number(query.get('after') ?? 0);
    const end = after + 2; // small pages
    return answer(res, 200, { conversations: ids.slice(after, end).map((id) => this.info(id)), ...(end < ids.length && { next: String(end) }) });
  }

  #append(res: ServerResponse, id: string, log: Log, body: any) {
    if (log.tombstoned) return refuse(res, 410, 'conversation_tombstoned');
    if (body.if_version != null && body.if_version !== log.version) {
      return refuse(res, 409, 'conflict', { message: `Version mismatch (current: ${log.version})`, current_version: log.version });
    }
    const held = body.message && log.messages.find((m) => m.id === body.message.id && same(m, body.message));
    if (held) return answer(res, 200, { seq: held.seq, version: held.seq, token_count: held.token_count, duplicate: true });
    const stored = (body.messages ?? [body.message]).map((m: Stored) => this.add(id, m)) as Stored[];
    const first = { seq: stored[0]!.seq, version: log.version, token_count: stored[0]!.token_count };
    return answer(res, 201, body.messages ? { ...first, last_seq: stored.at(-1)!.seq, messages: stored } : first);
  }

  #replay(res: ServerResponse, log: Log, given: number, limit: number) {
    const from = Math.max(given, 1);
    if (from < log.earliest) return refuse(res, 416, 'cursor_expired', { earliest_seq: log.earliest });
    const messages = log.messages.slice(from - 1, from - 1 + limit);
    return answer(res, 200, { messages, next_from: from + messages.length, last_seq: log.messages.length });
  }

  #followEvents(res: ServerResponse, id: string, query: URLSearchParams) {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    res.write(': hello\n\n');
    const follower: Follower = {
      next: Number(query.get('from') ?? this.log(id).messages.length + 1),
      send: (frame: any) => res.write(`event: ${frame.type}\n${frame.seq ? `id: ${frame.seq}\n` : ''}data: ${JSON.stringify(frame)}\n\n`),
      close: () => {
        this.followers.delete(follower);
        res.end();
      },
    };
    res.on('close', () => this.followers.delete(follower));
    this.#follow(follower, id);
  }
}

const same = (a: Stored, b: Stored) =>
  a.role === b.role && JSON.stringify(a.parts) === JSON.stringify(b.parts) && JSON.stringify(a.metadata) === JSON.stringify(b.metadata ?? {});

function parse(req: IncomingMessage) {
  const url = new URL(req.url!, 'http://model');
  const [, id = '', rest = ''] = /^\/v1\/conversations\/([^/]*)(.*)$/.exec(url.pathname) ?? [];
  return { id: decodeURIComponent(id), rest, path: url.pathname, query: url.searchParams };
}

export function answer(res: ServerResponse, status: number, body: object, headers: Record<string, string> = {}) {
  res.writeHead(status, { 'content-type': 'application/json', 'x-request-id': 'req-1', ...headers }).end(JSON.stringify(body));
  return true;
}

export function refuse(res: ServerResponse, status: number, error: string, more: object = {}, headers: Record<string, string> = {}) {
  return answer(res, status, { error, message: `The reason is ${error}.`, ...more }, headers);
}
