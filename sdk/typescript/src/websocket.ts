import { FastpacaError, aborted, invalid } from './errors.js';
import type { Connection, Frames, Position } from './events.js';
import type { Transport } from './transport.js';
import type { SubscribeOptions } from './types.js';

/** How long a connection may be silent before it is asked after. Scripts cannot ping. */
const idleDefaultMs = 60_000;

/**
 * How much may wait for a slow reader. A WebSocket cannot be held back: at this
 * point it is closed, and made again when the reader has come up.
 */
const maxQueuedChars = 8 << 20;

/** Codes with which the server sends all of its clients away: they come back one after the other. */
const restarting = 1012;
const tryLater = 1013;

/** Follows a conversation over a WebSocket. `probe` throws when silence is not to be trusted. */
export async function* webSocketFrames(
  transport: Transport,
  { id, from }: Position,
  { signal, idleMs = idleDefaultMs }: SubscribeOptions,
  connection: Connection,
  probe: () => Promise<void>,
): Frames {
  if (!transport.WebSocket) throw invalid('There is no WebSocket here: pass one to createClient, or use transport "sse"');
  const socket = new transport.WebSocket(transport.url('/conversations/{id}/stream', id, { from }).replace(/^http/, 'ws'));
  let queue: string[] = [];
  let queued = 0;
  let ended: FastpacaError | undefined;
  let wake = () => {};
  const end = (error: FastpacaError) => {
    ended ??= error;
    wake();
  };
  const onAbort = () => end(aborted(signal));
  socket.addEventListener('message', ({ data }) => {
    if (ended || typeof data !== 'string') return;
    queue.push(data);
    queued += data.length;
    if (queued > maxQueuedChars) {
      connection.overrun = true;
      socket.close();
      end(new FastpacaError('The reader is slow', { code: 'network', retryable: true }));
    }
    wake();
  });
  socket.addEventListener('open', () => (connection.opened = true));
  socket.addEventListener('close', ({ code, reason }) => {
    if (code === restarting || code === tryLater) connection.retryMs = 250 + Math.random() * 750;
    end(new FastpacaError(`The WebSocket was closed with ${code} ${reason}`, { code: 'network', retryable: true }));
  });
  socket.addEventListener('error', () => {}); // a close follows, and says more
  signal?.addEventListener('abort', onAbort);
  if (signal?.aborted) onAbort();
  try {
    for (;;) {
      if (queue.length) {
        const frames = queue;
        [queue, queued] = [[], 0];
        yield* frames;
      } else if (ended) {
        if (connection.overrun) return;
        throw ended;
      } else if (await silent(idleMs, (awake) => (wake = awake))) {
        await probe();
      }
    }
  } finally {
    signal?.removeEventListener('abort', onAbort);
    socket.close();
  }
}

/** Waits until woken, and tells whether that did not happen in time. */
const silent = (ms: number, sleep: (wake: () => void) => void): Promise<boolean> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms, true);
    sleep(() => {
      clearTimeout(timer);
      resolve(false);
    });
  });
