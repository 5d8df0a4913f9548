import type { Fastpaca } from '../client.js';
import { codeOf } from '../errors.js';
import { type Foldable, normalize } from '../fold.js';
import type { AppendOptions, Appended, CallOptions, Message, NewMessage } from '../types.js';

/** The shape of an AI SDK `UIMessage`, without a dependency on it. */
export interface UIMessageLike {
  id: string;
  role: 'system' | 'user' | 'assistant';
  metadata?: unknown;
  parts: any[];
}

const roles: Record<string, UIMessageLike['role']> = {
  system: 'system',
  developer: 'system',
  user: 'user',
};

/**
 * Turns messages of a conversation into UIMessages: of the revisions of a
 * message the newest, in the place of the first; tool calls of other dialects as
 * `dynamic-tool` parts; a message without an id as `seq-N`; roles that UIMessages
 * do not have as `assistant`, `developer` as `system`.
 */
export const toUIMessages = <UI extends UIMessageLike = UIMessageLike>(messages: Iterable<Message<any> | Foldable>): UI[] =>
  normalize(messages as Iterable<Foldable>).map(({ id, seq, role, parts, metadata }) => {
    const empty = !metadata || !Object.keys(metadata).length;
    return { id: id ?? `seq-${seq}`, role: roles[role] ?? 'assistant', ...(!empty && { metadata }), parts } as UIMessageLike as UI;
  });

export interface LoadOptions extends CallOptions {
  /** Only the newest so many; all if absent. A message revised among them keeps its place among them only. */
  last?: number | undefined;
}

/** Reads and writes the messages of chats; see `createChatStore`. */
export interface ChatStore {
  /** The messages of a chat, `[]` when it does not exist. */
  loadMessages<UI extends UIMessageLike = UIMessageLike>(chatId: string, options?: LoadOptions): Promise<UI[]>;
  /**
   * Appends a message, and creates the chat if need be. Saving the same again
   * changes nothing; other content under the same id is a revision.
   */
  saveMessage(chatId: string, message: NewMessage, options?: AppendOptions): Promise<Appended>;
  /** The same for several, together or not at all. */
  saveMessages(chatId: string, messages: readonly NewMessage[], options?: AppendOptions): Promise<Appended>;
}

const maxPage = 1000;

/** Keeps the UIMessages of chats in conversations of the same ids. */
export const createChatStore = (fastpaca: Pick<Fastpaca, 'ref'>): ChatStore => {
  const save = (chatId: string, message: NewMessage | readonly NewMessage[], options?: AppendOptions) =>
    creating(fastpaca, chatId, options, () => fastpaca.ref(chatId).append(message, options));
  return {
    async loadMessages<UI extends UIMessageLike>(chatId: string, { last, ...options }: LoadOptions = {}) {
      const conv = fastpaca.ref(chatId);
      let messages: Message<any>[] = [];
      try {
        if (last === undefined) {
          for await (const message of conv.messages<any>(options)) messages.push(message);
        }
        for (let missing = last ?? 0; missing > 0; missing = last! - messages.length) {
          const before = messages[0]?.seq;
          const page = await conv.tail<any>({ ...options, limit: Math.min(missing, maxPage), before });
          messages = [...page.messages, ...messages];
          if (!page.messages.length || page.messages[0]!.seq <= 1) break;
        }
      } catch (error) {
        if (codeOf(error) !== 'conversation_not_found') throw error;
      }
      return toUIMessages<UI>(messages);
    },
    saveMessage: save,
    saveMessages: save,
  };
};

/** Does what needs a conversation, and creates that when it turns out to be missing. */
export const creating = async <T>(fastpaca: Pick<Fastpaca, 'ref'>, id: string, options: CallOptions | undefined, action: () => Promise<T>): Promise<T> => {
  try {
    return await action();
  } catch (error) {
    if (codeOf(error) !== 'conversation_not_found') throw error;
    await fastpaca.ref(id).put(undefined, options);
    return action();
  }
};
