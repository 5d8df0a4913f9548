import { FastpacaError } from './errors.js';
import type { Connection, Frames, Position } from './events.js';
import { type Transport, strange } from './transport.js';
import type { SubscribeOptions } from './types.js';

/** The server sends a comment every 15 s; without three of them the connection is dead. */
const idleDefaultMs = 45_000;

/** What one event may take: a message of a MiB, in the widest of escapes, and its frame. */
const maxEventChars = 16 << 20;

/** Follows a conversation over Server-Sent Events, by fetch: it runs everywhere and can send headers. */
export async function* serverSentEvents(
  transport: Transport,
  { id, from }: Position,
  { signal, idleMs = idleDefaultMs }: SubscribeOptions,
  connection: Connection,
): Frames {
  const exchange = await transport.send({
    method: 'GET',
    path: '/conversations/{id}/events',
    id,
    query: { from },
    headers: { accept: 'text/event-stream' },
    signal,
  });
  const { response } = exchange;
  try {
    if (!/^text\/event-stream\b/i.test(response.headers.get('content-type') ?? '')) throw strange(response, await response.text());
    const reader = response.body!.getReader();
    const decoder = new TextDecoder();
    let rest = '';
    let data = '';
    for (;;) {
      exchange.extend(idleMs);
      const { done, value } = await reader.read();
      if (done) return;
      exchange.extend(0); // the reader may take its time
      const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        const text = line.endsWith('\r') ? line.slice(0, -1) : line;
        // Line breaks in JSON are white space, so the lines of one event need none between them.
        if (text.startsWith('data:')) data += text.slice(5);
        else if (text.startsWith('retry:')) connection.retryMs = Number(text.slice(6)) || 0;
        else if (!text && data) {
          yield data;
          data = '';
        }
      }
      if (rest.length + data.length > maxEventChars) throw new FastpacaError('An event is too long', { code: 'unexpected_response' });
    }
  } catch (cause) {
    throw exchange.failure(cause);
  } finally {
    exchange.close(true);
  }
}
