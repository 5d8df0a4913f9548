import type * as contract from './generated/types.gen.js';

/** One part of a message: an object with a string `type` and whatever else; it is stored as sent. */
export type MessagePart = { type: string };

/** A message as the server returns it, with the names of the wire. */
export type Message<Part extends MessagePart = contract.MessagePart> = Omit<contract.Message, 'parts'> & {
  parts: Part[];
};

/**
 * A message to append. An AI SDK `UIMessage` is one.
 *
 * With an `id` of your own (at most 128 bytes), the same content is stored once
 * however often it is appended, and other content is a revision at a new
 * sequence. Without one, a random id is sent.
 */
export interface NewMessage {
  id?: string | undefined;
  /** 1 to 64 bytes, of any value. */
  role: string;
  parts: readonly (MessagePart | { type: string; [key: string]: unknown })[];
  /** An object; `unknown` so that a `UIMessage` fits. */
  metadata?: unknown;
  token_count?: number | undefined;
}

/** A conversation as it stood when it was read. */
export type ConversationInfo = contract.Conversation;

/** What an append answers. For several messages `seq` is the first, and `messages` tells of each. */
export type Appended = contract.Appended;

/** A page of the newest messages, ascending. */
export interface Tail<Part extends MessagePart = contract.MessagePart> {
  messages: Message<Part>[];
}

/** A page read forward. Read on with `from: next_from`; at the end that exceeds `last_seq`. */
export interface Page<Part extends MessagePart = contract.MessagePart> extends Tail<Part> {
  next_from: number;
  last_seq: number;
}

/** A page of conversations, ascending by the bytes of their ids. Absent `next`: the last page. */
export type ConversationPage = contract.ConversationList;

/** Where a read is answered. `leader` is the default. */
export type Consistency = 'leader' | 'linearizable' | 'stale';

/** What every call takes. */
export interface CallOptions {
  /** Ends the call, its waits and its retries. */
  signal?: AbortSignal | undefined;
  /** Bounds each attempt, instead of the client's `timeoutMs`. 0 is no bound. */
  timeoutMs?: number | undefined;
  /** How many more times to try, instead of the client's `retries`. */
  retries?: number | undefined;
}

export interface ReadOptions extends CallOptions {
  consistency?: Consistency | undefined;
  /** Wait, a few seconds, until the conversation has reached this sequence. */
  minSeq?: number | undefined;
}

export interface TailOptions extends ReadOptions {
  /** How many messages at most: 1 to 1000, 100 if absent. */
  limit?: number | undefined;
  /** How many of the newest to skip; pages shift while messages arrive. */
  offset?: number | undefined;
  /** Only messages below this sequence: stable pages. Not with `offset`. */
  before?: number | undefined;
}

export interface ReplayOptions extends ReadOptions {
  /** The first sequence wanted; 1 if absent. */
  from?: number | undefined;
  /** How many messages at most: 1 to 1000, 100 if absent. */
  limit?: number | undefined;
}

export interface AppendOptions extends CallOptions {
  /** Append only if the conversation has this version; else `conflict`. */
  ifVersion?: number | undefined;
  /** Your own count of the tokens, for one message. */
  tokenCount?: number | undefined;
  /** Instead of the message's own `metadata`, for one message. */
  metadata?: Record<string, unknown> | undefined;
  /** The same key with another body is refused with `idempotency_conflict`. */
  idempotencyKey?: string | undefined;
}

export interface ListOptions extends CallOptions {
  /** Only ids that start with it. */
  prefix?: string | undefined;
  limit?: number | undefined;
  /** The `next` of the page before. */
  after?: string | undefined;
  consistency?: Consistency | undefined;
}

/** How a subscription reaches the server. `auto` takes what fits, see `SubscribeOptions.transport`. */
export type StreamTransport = 'auto' | 'websocket' | 'sse';

export interface SubscribeOptions {
  /**
   * The first sequence wanted; 0 and 1 are the first message. Absent: what is
   * appended from now on.
   */
  from?: number | undefined;
  /** Ends the subscription with an `aborted` error. `break` ends it without one. */
  signal?: AbortSignal | undefined;
  /**
   * `auto`, the default, is WebSocket where there is one and no header has to
   * be sent, else Server-Sent Events; it goes over to the latter when
   * WebSockets do not get through.
   */
  transport?: StreamTransport | undefined;
  /**
   * Called when messages are no longer held by the server, after which the
   * subscription goes on at `actual`. Absent: it ends with a `gap` error.
   */
  onGap?: ((gap: { expected: number; actual: number }) => void) | undefined;
  /** How long a stream that broke tries to come back: for ever if absent. */
  reconnectMs?: number | undefined;
  /**
   * How long a stream may be silent before it is not trusted. Server-Sent
   * Events, which bring a heartbeat every 15 s, are then connected again (45,000
   * if absent); a WebSocket is asked after first (60,000), by a small request.
   */
  idleMs?: number | undefined;
}

/** Something that happened to a conversation, or to the connection to it. */
export type StreamEvent<Part extends MessagePart = contract.MessagePart> =
  /** `version` is the conversation's after it; absent where the message was read to fill a hole. */
  | { type: 'message'; seq: number; version?: number | undefined; message: Message<Part> }
  /** Everything up to `seq` has been delivered; what follows is live. Once per connection. */
  | { type: 'caught_up'; seq: number }
  /** The conversation was closed. The last event. */
  | { type: 'tombstone' }
  /** Messages from `expected` up to, but without, `actual` are no longer held. */
  | { type: 'gap'; expected: number; actual: number }
  /** The connection broke and is made again after `waitMs`. Nothing is lost by it. */
  | { type: 'reconnecting'; error: unknown; waitMs: number };
