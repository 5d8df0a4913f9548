import type { Fastpaca } from '../client.js';
import { codeOf } from '../errors.js';

/** What Cria keeps beside what it stores. */
export interface MemoryEntry<T> {
  data: T;
  /** Milliseconds since 1970. */
  createdAt: number;
  updatedAt: number;
  metadata?: Record<string, unknown>;
}

/** Cria's `KVMemory`. */
export interface SummaryStore<T> {
  get(key: string): Promise<MemoryEntry<T> | null>;
  set(key: string, data: T, metadata?: Record<string, unknown>): Promise<void>;
  delete(key: string): Promise<boolean>;
}

type SummaryPart<T> = { type: string; entry?: MemoryEntry<T> };

/**
 * Keeps the summaries of `cria.summarizer` in side conversations, `KEY:summary`:
 * the newest message is the value. Nothing else has to be run for it.
 */
export const createSummaryStore = <T = { content: string }>(fastpaca: Pick<Fastpaca, 'ref'>, { suffix = ':summary' } = {}): SummaryStore<T> => {
  const log = (key: string) => fastpaca.ref(key + suffix);
  const append = async (key: string, part: SummaryPart<T>) => {
    await log(key).append({ role: 'system', parts: [part] });
  };
  const get = async (key: string): Promise<MemoryEntry<T> | null> => {
    try {
      const { messages } = await log(key).tail<SummaryPart<T>>({ limit: 1 });
      return messages[0]?.parts[0]?.entry ?? null;
    } catch (error) {
      if (codeOf(error) === 'conversation_not_found') return null;
      throw error;
    }
  };
  return {
    get,
    async set(key, data, metadata) {
      const before = await get(key);
      if (!before) await log(key).put();
      const now = Date.now();
      const entry = { data, createdAt: before?.createdAt ?? now, updatedAt: now, ...(metadata && { metadata }) };
      await append(key, { type: 'summary', entry });
    },
    async delete(key) {
      if (!(await get(key))) return false;
      await append(key, { type: 'deleted' }); // a tombstone would refuse the next set
      return true;
    },
  };
};
