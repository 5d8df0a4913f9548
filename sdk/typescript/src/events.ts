import type { Conversation } from './conversation.js';
import { FastpacaError, aborted } from './errors.js';
import { serverSentEvents } from './sse.js';
import { type Transport, backoff, pause } from './transport.js';
import type { MessagePart, StreamEvent, SubscribeOptions } from './types.js';
import { webSocketFrames } from './websocket.js';

/** An iterator of a subscription. `return`, which `break` calls, also ends a `next` that waits. */
export interface Events<T> extends AsyncIterableIterator<T> {
  return(): Promise<IteratorReturnResult<undefined>>;
}

/** One connection's worth of frames, as JSON text. It ends or throws when the connection does. */
export type Frames = AsyncGenerator<string, void, undefined>;

/** Where a connection begins. */
export interface Position {
  id: string;
  from: number;
}

/** What a connection tells beside frames. */
export interface Connection {
  /** How long the server asked to wait before the next connection. */
  retryMs?: number;
  /** A WebSocket has been accepted. */
  opened?: boolean;
  /** The reader was slow; nothing is wrong, and there is nothing to wait for. */
  overrun?: boolean;
}

/** WebSockets that could not be opened while the server was there, before Server-Sent Events are taken. */
const handshakesBeforeFallback = 2;

export const subscribeEvents = <Part extends MessagePart, T>(
  transport: Transport,
  conversation: Conversation,
  options: SubscribeOptions,
  pick: (event: StreamEvent<Part>) => T | undefined,
): Events<T> => {
  const { signal } = options;
  const control = new AbortController();
  let returned = false;
  const end = () => control.abort(signal?.reason);
  const run = new Subscription<Part>(transport, conversation, { ...options, signal: control.signal }).run();
  const done = () => {
    signal?.removeEventListener('abort', end);
    return { done: true, value: undefined } as const;
  };
  signal?.addEventListener('abort', end);
  if (signal?.aborted) end();
  return {
    async next() {
      try {
        for (;;) {
          const step = await run.next();
          if (step.done || returned) return done();
          const value = pick(step.value);
          if (value !== undefined) return { done: false, value };
        }
      } catch (error) {
        const ended = done();
        if (returned) return ended;
        throw error;
      }
    },
    async return() {
      returned = true;
      control.abort();
      await run.return();
      return done();
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
};

/** One iteration: a cursor, and connections that bring it forward. */
class Subscription<Part extends MessagePart> {
  /** The sequence that is to be delivered next. */
  #next = 0;
  #overWebSocket: boolean;
  #handshakes = 0;

  constructor(
    readonly transport: Transport,
    readonly conversation: Conversation,
    readonly options: SubscribeOptions,
  ) {
    const { transport: wanted = 'auto' } = options;
    this.#overWebSocket = wanted === 'websocket' || (wanted === 'auto' && !!transport.WebSocket && !transport.credentials);
  }

  async *run(): AsyncGenerator<StreamEvent<Part>, void, undefined> {
    const { from, signal, reconnectMs = Infinity } = this.options;
    // The server would take an absent cursor for now, too. But a connection that
    // broke before its first message would leave open where now was.
    this.#next = from === undefined ? Number((await this.conversation.get({ signal })).last_seq) + 1 : Math.max(from, 1);
    let connected = false;
    let failures = 0;
    let since = 0;
    for (;;) {
      const connection: Connection = {};
      let frames = 0;
      let error: FastpacaError;
      try {
        for await (const text of this.#connect(connection)) {
          frames++;
          for await (const event of this.#deliver(text)) {
            yield event;
            if (event.type === 'tombstone') return;
          }
        }
        error = new FastpacaError('The server ended the stream', { code: 'network', retryable: true });
      } catch (cause) {
        error = cause as FastpacaError;
      }
      if (signal?.aborted) throw aborted(signal);
      if (frames) [connected, failures] = [true, 0];
      if (connection.overrun) continue;
      if (error.code === 'cursor_expired' && error.earliestSeq! > this.#next) {
        yield this.#gap(error.earliestSeq!);
        continue;
      }
      if (this.#overWebSocket && !connection.opened && error.retryable) error = await this.#diagnose(error);
      if (!failures++) since = Date.now();
      const exhausted = connected ? Date.now() - since > reconnectMs : failures > this.transport.retries;
      if (!error.retryable || exhausted) throw error;
      const waitMs = (error.retryAfterMs ?? 0) + ((failures === 1 && connection.retryMs) || backoff(failures));
      if (connected) yield { type: 'reconnecting', error, waitMs };
      await pause(waitMs, signal);
    }
  }

  #connect(connection: Connection): Frames {
    const { transport, conversation, options } = this;
    const position = { id: conversation.id, from: this.#next };
    return this.#overWebSocket
      ? webSocketFrames(transport, position, options, connection, () => this.#probe())
      : serverSentEvents(transport, position, options, connection);
  }

  /** Brings the cursor forward by a frame, and over a hole before it. */
  async *#deliver(text: string): AsyncGenerator<StreamEvent<Part>, void, undefined> {
    const frame = this.#parse(text);
    if (frame.type === 'message') {
      const seq = Number(frame.seq);
      yield* this.#repair(seq);
      if (seq === this.#next) {
        this.#next++;
        yield frame;
      }
    } else if (frame.type === 'gap') {
      yield* this.#repair(Number(frame.actual));
    } else if (frame.type === 'caught_up' || frame.type === 'tombstone') {
      yield frame;
    } // what else there may come to be is not for this version
  }

  #parse(text: string): StreamEvent<Part> {
    try {
      return this.transport.json.parse(text) as StreamEvent<Part>;
    } catch (cause) {
      throw new FastpacaError('A frame is not JSON', { code: 'unexpected_response', cause });
    }
  }

  /** Reads what is missing before a sequence; what cannot be had is a gap. */
  async *#repair(upTo: number): AsyncGenerator<StreamEvent<Part>, void, undefined> {
    const { signal } = this.options;
    while (this.#next < upTo) {
      const from = this.#next;
      try {
        const page = await this.conversation.replay<Part>({ from, limit: Math.min(upTo - from, 1000), signal });
        for (const message of page.messages) {
          const seq = Number(message.seq);
          if (seq !== this.#next) break;
          this.#next++;
          yield { type: 'message', seq, message };
        }
        if (this.#next === from) yield this.#gap(upTo);
      } catch (error) {
        const { code, earliestSeq } = error as FastpacaError;
        if (code !== 'cursor_expired') throw error;
        yield this.#gap(Math.min(earliestSeq || upTo, upTo));
      }
    }
  }

  #gap(actual: number): StreamEvent<Part> {
    const expected = this.#next;
    const { onGap } = this.options;
    if (!onGap) {
      throw new FastpacaError(`Messages ${expected} to ${actual - 1} are no longer held by the server`, {
        code: 'gap',
        expectedSeq: expected,
        earliestSeq: actual,
      });
    }
    this.#next = actual;
    onGap({ expected, actual });
    return { type: 'gap', expected, actual };
  }

  /**
   * Finds out why a WebSocket brought nothing, because browsers do not tell: a
   * server that answers otherwise is taken for one behind a proxy that lets no
   * WebSocket through.
   */
  async #diagnose(error: FastpacaError): Promise<FastpacaError> {
    try {
      await this.conversation.get({ signal: this.options.signal, retries: 0 });
    } catch (cause) {
      return cause as FastpacaError;
    }
    const { transport: wanted = 'auto' } = this.options;
    if (wanted === 'auto' && ++this.#handshakes >= handshakesBeforeFallback) this.#overWebSocket = false;
    return error;
  }

  /** Throws when a silent connection has missed something. */
  async #probe(): Promise<void> {
    const info = await this.conversation.get({ signal: this.options.signal, retries: 0 });
    if (Number(info.last_seq) >= this.#next || info.tombstoned) {
      throw new FastpacaError('The stream has fallen silent', { code: 'network', retryable: true });
    }
  }
}
