import { Conversation } from './conversation.js';
import type { ListConversationsData } from './generated/types.gen.js';
import { type ClientOptions, Transport } from './transport.js';
import type { CallOptions, ConversationInfo, ConversationPage, ListOptions, ReadOptions } from './types.js';

/** Makes a client of the server at `baseUrl`. Nothing is sent yet; make one and share it. */
export const createClient = (options: ClientOptions = {}): Fastpaca => new Fastpaca(options);

export interface ConversationOptions extends CallOptions {
  /** Given, it replaces the conversation's metadata; absent, that stays. */
  metadata?: Record<string, unknown> | undefined;
}

/** A client of one deployment. It holds no connection and needs no closing. */
export class Fastpaca {
  readonly #transport: Transport;

  constructor(options: ClientOptions = {}) {
    this.#transport = new Transport(options);
  }

  /**
   * Returns a handle on a conversation. With options, `{}` too, the conversation
   * is created if it does not exist; without, nothing is sent.
   */
  async conversation(id: string, options?: ConversationOptions): Promise<Conversation> {
    const handle = this.ref(id);
    if (options) await handle.put(options.metadata, options);
    return handle;
  }

  /** Returns a handle on a conversation and sends nothing. It need not exist. */
  ref(id: string): Conversation {
    return new Conversation(this.#transport, id);
  }

  getConversation(id: string, options?: ReadOptions): Promise<ConversationInfo> {
    return this.ref(id).get(options);
  }

  /** Closes a conversation for writing. It can still be read. */
  tombstoneConversation(id: string, options?: CallOptions): Promise<void> {
    return this.ref(id).tombstone(options);
  }

  /** Reads one page of the conversations. It may be empty and not the last. */
  listConversations({ prefix, limit, after, consistency, ...options }: ListOptions = {}): Promise<ConversationPage> {
    const path: ListConversationsData['url'] = '/conversations';
    const query: ListConversationsData['query'] = { prefix, limit, after, consistency } as ListConversationsData['query'];
    return this.#transport.call({ method: 'GET', path, query, ...options });
  }

  /** Iterates over all conversations whose id starts with a prefix, page by page. */
  async *conversations(options: ListOptions = {}): AsyncGenerator<ConversationInfo, void, undefined> {
    let after = options.after;
    do {
      const page = await this.listConversations({ limit: 1000, ...options, after });
      yield* page.conversations;
      after = page.next;
    } while (after);
  }
}

