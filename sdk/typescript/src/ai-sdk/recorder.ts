import type { Conversation } from '../conversation.js';
import { codeOf } from '../errors.js';

/** A chunk of a UI message stream. */
export type Chunk = { type: string };

export interface RecorderOptions {
  /** How long chunks are gathered before they are appended together: 100. */
  batchMs?: number | undefined;
  /** How many characters of them are not waited with: 32,768. */
  batchChars?: number | undefined;
  /** How often a silent run shows that it lives, and looks whether it was stopped: 2,000. */
  heartbeatMs?: number | undefined;
}

/** What may wait to be appended before the run has to wait, in characters. */
const maxPendingChars = 1 << 20;

export const chunksType = 'data-ui-chunks';

/** Appends the chunks of one run to its log, a batch at a time. */
export class Recorder {
  /** Settles when the log was closed, or could not be written: `stopped` tells whether because somebody stopped the run. */
  readonly done: Promise<{ stopped: boolean; error?: unknown }>;
  readonly #log: Conversation;
  readonly #options: Required<{ [K in keyof RecorderOptions]: number }>;
  #pending: Chunk[] = [];
  #chars = 0;
  #closed = false;
  #ended = false;
  #wake = () => {};
  #drained: (() => void)[] = [];

  constructor(log: Conversation, { batchMs = 100, batchChars = 32 << 10, heartbeatMs = 2_000 }: RecorderOptions) {
    this.#log = log;
    this.#options = { batchMs, batchChars, heartbeatMs };
    this.done = this.#run().catch((error: unknown) => this.#failed(error));
  }

  /** Takes a chunk; the promise, if any, is to be waited for before the next. */
  push(chunk: Chunk): Promise<void> | undefined {
    if (this.#ended) return undefined;
    this.#pending.push(chunk);
    this.#chars += JSON.stringify(chunk).length;
    this.#wake();
    if (this.#chars < maxPendingChars) return undefined;
    return new Promise((drained) => this.#drained.push(drained));
  }

  /** Says that no chunk comes any more. What is pending is still appended. */
  close() {
    this.#closed = true;
    this.#wake();
  }

  async #run(): Promise<{ stopped: boolean }> {
    const { batchMs, batchChars, heartbeatMs } = this.#options;
    while (!this.#closed || this.#pending.length) {
      await this.#until(heartbeatMs, () => this.#pending.length > 0);
      await this.#until(this.#pending.length ? batchMs : 0, () => this.#chars >= batchChars);
      const data = this.#pending;
      [this.#pending, this.#chars] = [[], 0];
      if (!data.length && this.#closed) break;
      await this.#log.append({ role: 'assistant', parts: [{ type: chunksType, data }] });
      for (const drained of this.#drained.splice(0)) drained();
    }
    this.#ended = true;
    await this.#log.tombstone();
    return { stopped: false };
  }

  #failed(error: unknown) {
    this.#ended = true;
    this.#pending = [];
    for (const drained of this.#drained.splice(0)) drained();
    const stopped = codeOf(error) === 'conversation_tombstoned';
    return stopped ? { stopped } : { stopped, error };
  }

  /** Waits until a condition holds that chunks bring about, the end is near, or the time is over. */
  async #until(ms: number, met: () => boolean): Promise<void> {
    if (ms <= 0 || this.#closed || met()) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        if (!this.#closed && !met()) return;
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = () => {};
  }
}
