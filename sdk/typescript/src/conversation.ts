import { invalid } from './errors.js';
import { type Events, subscribeEvents } from './events.js';
import type {
  AppendMessagesData,
  GetConversationData,
  PutConversationData,
  ReplayMessagesData,
  TailMessagesData,
  TombstoneConversationData,
} from './generated/types.gen.js';
import type { Request, Transport } from './transport.js';
import type {
  AppendOptions,
  Appended,
  CallOptions,
  ConversationInfo,
  Message,
  MessagePart,
  NewMessage,
  Page,
  ReadOptions,
  ReplayOptions,
  StreamEvent,
  SubscribeOptions,
  Tail,
  TailOptions,
} from './types.js';

/** An operation of the contract, as the generator writes it down. */
interface Operation {
  url: string;
  query?: object;
}

type AnyPart = Message['parts'][number];

/** A handle on one conversation. */
export class Conversation {
  readonly #transport: Transport;

  /** @internal Use `conversation` or `ref` of a client. */
  constructor(
    transport: Transport,
    readonly id: string,
  ) {
    this.#transport = transport;
    transport.url('{id}', id ?? ''); // throws what cannot be sent
  }

  get(options?: ReadOptions): Promise<ConversationInfo> {
    return this.#read<GetConversationData, ConversationInfo>('/conversations/{id}', {}, options);
  }

  /** Creates the conversation if it does not exist. Metadata that is given replaces what is there. */
  put(metadata?: Record<string, unknown>, options?: CallOptions): Promise<ConversationInfo> {
    return this.#write<PutConversationData, ConversationInfo>('PUT', '/conversations/{id}', { metadata }, options);
  }

  /** Closes the conversation for writing. It can still be read. Repeating it changes nothing. */
  tombstone(options?: CallOptions): Promise<void> {
    return this.#write<TombstoneConversationData, void>('DELETE', '/conversations/{id}', undefined, options);
  }

  /**
   * Appends a message, or several together or not at all. Repeating it is safe
   * because every message has an id, a random one if you give none.
   */
  async append(message: NewMessage | readonly NewMessage[], options: AppendOptions = {}): Promise<Appended> {
    const { ifVersion, tokenCount, metadata, idempotencyKey } = options;
    const form = (m: NewMessage) => ({
      id: m.id ?? randomId(),
      role: m.role,
      parts: m.parts,
      metadata: metadata ?? m.metadata,
      token_count: tokenCount ?? m.token_count,
    });
    const several = Array.isArray(message);
    if (several && (metadata ?? tokenCount) !== undefined) throw invalid('metadata and tokenCount are of one message: put them into each');
    return this.#write<AppendMessagesData, Appended>(
      'POST',
      '/conversations/{id}/messages',
      { ...(several ? { messages: message.map(form) } : { message: form(message as NewMessage) }), if_version: ifVersion },
      options,
      { 'idempotency-key': idempotencyKey },
    );
  }

  /** Reads the newest messages, ascending. */
  tail<Part extends MessagePart = AnyPart>({ limit, offset, before, ...options }: TailOptions = {}): Promise<Tail<Part>> {
    return this.#read<TailMessagesData, Tail<Part>>('/conversations/{id}/tail', { limit, offset, before }, options);
  }

  /** Reads one page of messages from a sequence on, without skipping any. */
  replay<Part extends MessagePart = AnyPart>({ from, limit, ...options }: ReplayOptions = {}): Promise<Page<Part>> {
    return this.#read<ReplayMessagesData, Page<Part>>('/conversations/{id}/messages', { from, limit }, options);
  }

  /** Iterates over the messages from a sequence on, page by page, up to the newest. */
  async *messages<Part extends MessagePart = AnyPart>(options: ReplayOptions = {}): AsyncGenerator<Message<Part>, void, undefined> {
    let { from = 1 } = options;
    for (;;) {
      const page = await this.replay<Part>({ limit: 1000, ...options, from });
      yield* page.messages;
      from = Number(page.next_from);
      if (from > Number(page.last_seq)) return;
    }
  }

  /**
   * Iterates over messages: first what is there from a sequence on, then live,
   * each once and in order, over broken connections, restarts and failovers. It
   * ends when the conversation is tombstoned.
   */
  subscribe<Part extends MessagePart = AnyPart>(options: SubscribeOptions = {}): Events<Message<Part>> {
    return subscribeEvents<Part, Message<Part>>(this.#transport, this, options, (event) =>
      event.type === 'message' ? event.message : undefined,
    );
  }

  /** The same, with everything that happens beside messages. Gaps are events here. */
  events<Part extends MessagePart = AnyPart>(options: Omit<SubscribeOptions, 'onGap'> = {}): Events<StreamEvent<Part>> {
    return subscribeEvents<Part, StreamEvent<Part>>(this.#transport, this, { ...options, onGap: () => {} }, (event) => event);
  }

  #read<D extends Operation, T>(path: D['url'], query: D['query'] | object, options: ReadOptions = {}): Promise<T> {
    const { consistency, minSeq, ...rest } = options;
    return this.#transport.call({
      ...rest,
      method: 'GET',
      path,
      id: this.id,
      query: { ...query, consistency },
      headers: { 'x-fastpaca-min-seq': minSeq?.toString() },
    });
  }

  // Async, so that what cannot be encoded rejects and does not throw.
  async #write<D extends Operation, T>(method: string, path: D['url'], body: unknown, { signal, timeoutMs, retries }: CallOptions = {}, headers?: Request['headers']): Promise<T> {
    let text: string | undefined;
    try {
      text = body === undefined ? undefined : this.#transport.json.stringify(body);
    } catch (cause) {
      throw invalid(`What is to be sent is not JSON: ${(cause as Error).message}`);
    }
    return this.#transport.call({
      method,
      path,
      id: this.id,
      body: text,
      headers,
      signal,
      timeoutMs,
      retries,
    });
  }
}

/** 128 random bits, or nearly. Pages that are not served securely have no `randomUUID`. */
export const randomId = (): string =>
  crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(36)).join('-');
