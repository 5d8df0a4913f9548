import type { Fastpaca } from '../client.js';
import { type Conversation, randomId } from '../conversation.js';
import { codeOf } from '../errors.js';
import type { StreamEvent } from '../types.js';
import { creating } from './messages.js';
import { type Chunk, Recorder, type RecorderOptions, chunksType } from './recorder.js';

/** One answer that is being made. */
export interface Run {
  id: string;
  /** Aborted by `stop`: give it to the model as `abortSignal`. */
  signal: AbortSignal;
}

/** What `start` makes a response of: a UI message stream, or what makes one of a run. */
export type ChunkSource = ReadableStream<Chunk> | ((run: Run) => ReadableStream<Chunk> | Promise<ReadableStream<Chunk>>);

export interface ResumableChatOptions extends RecorderOptions {
  /** After so long without a sign of life a run counts as dead, and is closed by whoever notices: 10,000. */
  deadAfterMs?: number | undefined;
  /** Keeps a serverless function alive until a run is recorded, as `after` or `waitUntil` do. */
  waitUntil?: ((done: Promise<unknown>) => void) | undefined;
  /** Told when a run cannot be recorded. The answer itself goes on. */
  onError?: ((error: unknown) => void) | undefined;
}

/** Chats whose answers outlive the connection; see `createResumableChat`. */
export interface ResumableChat {
  /**
   * Answers with the stream, and records it so that it can be resumed. It is
   * read to its end also when the client has gone.
   */
  start(chatId: string, source: ChunkSource): Promise<Response>;
  /**
   * Answers with the stream of the answer that is being made, from its
   * beginning, or with 204 when there is none.
   */
  resume(chatId: string, options?: { signal?: AbortSignal | undefined }): Promise<Response>;
  /** Stops the answer that is being made, wherever that runs, and tells whether there was one. */
  stop(chatId: string): Promise<boolean>;
}

/**
 * Makes answers resumable with the log as the only store: the chunks of a run go
 * to a conversation of its own, `CHAT:run:ID`, which is tombstoned at the end;
 * `CHAT:runs` holds the ids of the runs, the newest of which is the active one if
 * it is not tombstoned.
 */
export const createResumableChat = (fastpaca: Pick<Fastpaca, 'ref'>, options: ResumableChatOptions = {}): ResumableChat => {
  const runOf = (chatId: string, id: string) => fastpaca.ref(`${chatId}:run:${id}`);

  const active = async (chatId: string): Promise<Conversation | undefined> => {
    try {
      const { messages } = await fastpaca.ref(`${chatId}:runs`).tail<{ type: string; data?: { run?: string } }>({ limit: 1 });
      const id = messages[0]?.parts[0]?.data?.run;
      if (!id) return undefined;
      const run = runOf(chatId, id);
      return (await run.get()).tombstoned ? undefined : run;
    } catch (error) {
      if (codeOf(error) === 'conversation_not_found') return undefined;
      throw error;
    }
  };

  return {
    async start(chatId, source) {
      const id = randomId();
      const run = runOf(chatId, id);
      await run.put({ chat: chatId });
      await creating(fastpaca, `${chatId}:runs`, undefined, () =>
        fastpaca.ref(`${chatId}:runs`).append({ id, role: 'system', parts: [{ type: 'data-run', data: { run: id } }] }),
      );
      const control = new AbortController();
      let stream: ReadableStream<Chunk>;
      try {
        stream = typeof source === 'function' ? await source({ id, signal: control.signal }) : source;
      } catch (error) {
        await run.tombstone();
        throw error;
      }
      const graceMs = typeof source === 'function' ? stopGraceMs : 0;
      const [body, recorded] = record(run, stream, control, graceMs, options);
      options.waitUntil?.(recorded);
      return eventStream(body);
    },

    async resume(chatId, { signal } = {}) {
      const run = await active(chatId);
      return run ? eventStream(replay(run, options.deadAfterMs ?? 10_000, signal)) : new Response(null, { status: 204 });
    },

    async stop(chatId) {
      const run = await active(chatId);
      await run?.tombstone();
      return !!run;
    },
  };
};

/** What a stream that was given the signal has to end by itself, before it is cut off. */
const stopGraceMs = 5_000;

const encoder = new TextEncoder();
const encode = (chunk: Chunk) => encoder.encode(`data: ${JSON.stringify(chunk)}\n\n`);
const end = encoder.encode('data: [DONE]\n\n');

const eventStream = (body: ReadableStream<Uint8Array>): Response =>
  new Response(body as BodyInit, {
    headers: {
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
      'x-vercel-ai-ui-message-stream': 'v1',
    },
  });

/** Reads a stream to its end, into the log and, as long as it is read, into the body that it returns. */
const record = (
  run: Conversation,
  stream: ReadableStream<Chunk>,
  control: AbortController,
  graceMs: number,
  options: ResumableChatOptions,
): [body: ReadableStream<Uint8Array>, recorded: Promise<void>] => {
  const recorder = new Recorder(run, options);
  let body: ReadableStreamDefaultController<Uint8Array> | undefined;
  const send = (bytes: Uint8Array) => {
    try {
      body?.enqueue(bytes);
    } catch {
      body = undefined; // the client has gone
    }
  };
  const reader = stream.getReader();
  let cutting: ReturnType<typeof setTimeout> | undefined;
  // A recorder that ends before the stream does was stopped, or cannot write.
  const stopped = recorder.done.then(({ stopped, error }) => {
    if (stopped) {
      control.abort();
      cutting = setTimeout(() => void reader.cancel().catch(() => {}), graceMs);
    }
    if (error !== undefined) options.onError?.(error);
  });
  const pump = async () => {
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        send(encode(value));
        await recorder.push(value);
      }
    } catch (error) {
      const chunk = { type: 'error', errorText: error instanceof Error ? error.message : String(error) };
      send(encode(chunk));
      await recorder.push(chunk);
    }
    recorder.close();
    send(end);
    try {
      body?.close();
    } catch {
      // cancelled
    }
    await stopped;
    clearTimeout(cutting);
  };
  let recorded: Promise<void> = stopped;
  const readable = new ReadableStream<Uint8Array>({
    start(controller) {
      body = controller;
      recorded = pump();
    },
    cancel() {
      body = undefined;
    },
  });
  return [readable, recorded];
};

/** Follows the log of a run as a body. */
const replay = (run: Conversation, deadAfterMs: number, signal: AbortSignal | undefined): ReadableStream<Uint8Array> => {
  const control = new AbortController();
  const abort = () => control.abort();
  signal?.addEventListener('abort', abort);
  if (signal?.aborted) abort();
  const events = run.events<{ type: string; data: Chunk[] }>({ from: 1, signal: control.signal });
  let finished = false;
  let dead: ReturnType<typeof setTimeout> | undefined;
  // Death is told by the silence of the log and not by its clock, which is another machine's.
  const alive = () => {
    clearTimeout(dead);
    dead = setTimeout(() => void run.tombstone().catch(abort), deadAfterMs);
  };
  const close = (body: ReadableStreamDefaultController<Uint8Array>) => {
    clearTimeout(dead);
    signal?.removeEventListener('abort', abort);
    if (!finished) body.enqueue(encode({ type: 'abort' }));
    body.enqueue(end);
    body.close();
  };
  const forward = (event: StreamEvent<{ type: string; data: Chunk[] }>, body: ReadableStreamDefaultController<Uint8Array>) => {
    if (event.type === 'message') alive();
    const chunks = event.type === 'message' && event.message.parts[0]?.type === chunksType ? event.message.parts[0].data : [];
    for (const chunk of chunks) {
      finished ||= chunk.type === 'finish' || chunk.type === 'abort' || chunk.type === 'error';
      body.enqueue(encode(chunk));
    }
    return chunks.length > 0;
  };
  return new ReadableStream<Uint8Array>({
    start: alive,
    async pull(body) {
      try {
        for (;;) {
          const { done, value } = await events.next();
          if (done || value.type === 'tombstone') return close(body);
          if (forward(value, body)) return;
        }
      } catch (error) {
        clearTimeout(dead);
        signal?.removeEventListener('abort', abort);
        body.error(error);
      }
    },
    async cancel() {
      clearTimeout(dead);
      signal?.removeEventListener('abort', abort);
      await events.return();
    },
  });
};
