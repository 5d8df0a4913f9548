import { FastpacaError, aborted, invalid } from './errors.js';
import type { CallOptions } from './types.js';

/** Reads and writes JSON; replaceable by a parser that keeps numbers beyond 2^53. */
export interface JSONCodec {
  parse(text: string): unknown;
  stringify(value: unknown): string;
}

/** The least that this package wants of a WebSocket; those of browsers, Node and `ws` have it. */
export interface WebSocketLike {
  addEventListener(type: string, listener: (event: any) => void): void;
  close(code?: number, reason?: string): void;
}

export interface ClientOptions {
  /** The server, with or without the trailing `/v1`; `http://localhost:4000/v1` if absent. In browsers it may be a path. */
  baseUrl?: string | URL | undefined;
  /** Sent as `Authorization: Bearer …`; a function is asked before every attempt. For a gateway in front of the server. */
  apiKey?: string | (() => string | Promise<string>) | undefined;
  /** Sent with every request. */
  headers?: Record<string, string> | undefined;
  /** Instead of the global one. */
  fetch?: typeof globalThis.fetch | undefined;
  /** Instead of the global one, which Node 20 has not; `ws` fits. Without any, subscriptions use Server-Sent Events. */
  WebSocket?: (new (url: string) => WebSocketLike) | undefined;
  /** Bounds each attempt, its answer included: 30,000. 0 is no bound. */
  timeoutMs?: number | undefined;
  /** How many more times a call is tried: 5. */
  retries?: number | undefined;
  /** Instead of `JSON`. */
  json?: JSONCodec | undefined;
}

const minWaitMs = 100;
const maxWaitMs = 10_000;
/** A server that asks for more than this gets no retry: the caller decides. */
const maxRetryAfterMs = 30_000;

/** The wait before try n, from 1 for the second: doubled, and a random part of it. */
export const backoff = (n: number): number => Math.min(minWaitMs * 2 ** (n - 1), maxWaitMs) * (0.5 + Math.random() / 2);

/** Waits, unless the signal is aborted before. */
export const pause = (ms: number, signal: AbortSignal | undefined): Promise<void> =>
  new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(aborted(signal));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', end);
      resolve();
    }, ms);
    if (signal?.aborted) end();
    else signal?.addEventListener('abort', end, { once: true });
  });

/** A path of the contract, with `{id}` in it. */
export interface Request extends CallOptions {
  method: string;
  path: string;
  id?: string | undefined;
  query?: object | undefined;
  headers?: Record<string, string | undefined> | undefined;
  /** Already JSON, so that every attempt sends the same bytes. */
  body?: string | undefined;
}

/** One attempt that is under way: its response, and what ends it. */
export interface Exchange {
  response: Response;
  /** Puts the bound of the time off, for streams. */
  extend(ms: number): void;
  /** Releases the timer and the listener; `abort` also breaks the connection. */
  close(abort?: boolean): void;
  /** Makes an error of this package of what reading the body threw. */
  failure(cause: unknown): FastpacaError;
}

/** Sends requests: addresses, credentials, time bounds, retries and errors. */
export class Transport {
  readonly json: JSONCodec;
  readonly retries: number;
  readonly WebSocket: ClientOptions['WebSocket'];
  readonly #base: string;
  readonly #options: ClientOptions;

  constructor(options: ClientOptions) {
    this.#options = options;
    this.#base = baseOf(options.baseUrl);
    this.json = options.json ?? JSON;
    this.retries = options.retries ?? 5;
    this.WebSocket = options.WebSocket ?? (globalThis.WebSocket as ClientOptions['WebSocket']);
  }

  /** Whether requests carry headers, which a browser's WebSocket cannot. */
  get credentials(): boolean {
    return !!(this.#options.apiKey ?? this.#options.headers);
  }

  /** The address of a path, with the id encoded and absent parameters left out. */
  url(path: string, id?: string, query: object = {}): string {
    const params = Object.entries(query).flatMap(([name, value]) => (value == null ? [] : `${name}=${encodeURIComponent(value)}`));
    return this.#base + (id === undefined ? path : path.replace('{id}', encodeId(id))) + (params.length ? `?${params.join('&')}` : '');
  }

  /** Sends a request until it succeeds, and returns the answer's JSON. */
  async call<T>(request: Request): Promise<T> {
    return this.retry(request, async () => {
      const exchange = await this.send(request);
      try {
        const text = await exchange.response.text();
        return (text ? this.decode(exchange.response, text) : undefined) as T;
      } catch (cause) {
        throw exchange.failure(cause);
      } finally {
        exchange.close();
      }
    });
  }

  /** Tries, and tries again as long as that has a prospect. */
  async retry<T>({ retries = this.retries, signal }: CallOptions, attempt: () => Promise<T>): Promise<T> {
    for (let n = 1; ; n++) {
      try {
        return await attempt();
      } catch (error) {
        const failed = error as FastpacaError;
        failed.attempts = n;
        const asked = failed.retryAfterMs ?? 0;
        if (!failed.retryable || n > retries || asked > maxRetryAfterMs) throw failed;
        await pause(asked + backoff(n), signal);
      }
    }
  }

  /** Sends a request once. Anything but a success is thrown. */
  async send({ method, path, id, query, headers, body, signal, timeoutMs }: Request): Promise<Exchange> {
    const url = this.url(path, id, query);
    const { apiKey, fetch = globalThis.fetch } = this.#options;
    const control = new AbortController();
    const bound = timeoutMs ?? this.#options.timeoutMs ?? 30_000;
    let timedOut = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const extend = (ms: number) => {
      clearTimeout(timer);
      if (ms > 0)
        timer = setTimeout(() => {
          timedOut = true;
          control.abort();
        }, ms);
    };
    const onAbort = () => control.abort(signal?.reason);
    const close = (abort?: boolean) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      if (abort) control.abort();
    };
    const failure = (cause: unknown): FastpacaError => {
      if (cause instanceof FastpacaError) return cause;
      if (signal?.aborted) return aborted(signal);
      if (timedOut) return new FastpacaError(`${method} ${url} took longer than it may`, { code: 'timeout', retryable: true });
      const { message, cause: inner } = cause as Error & { cause?: { code?: string } };
      return new FastpacaError(`${method} ${url}: ${message}${inner?.code ? ` (${inner.code})` : ''}`, {
        code: 'network',
        retryable: true,
        cause,
      });
    };
    if (signal?.aborted) throw aborted(signal);
    signal?.addEventListener('abort', onAbort);
    extend(bound);
    try {
      const token = typeof apiKey === 'function' ? await apiKey() : apiKey;
      const sent: Record<string, string> = { ...this.#options.headers };
      if (token) sent['authorization'] = `Bearer ${token}`;
      if (body !== undefined) sent['content-type'] = 'application/json';
      for (const [name, value] of Object.entries(headers ?? {})) if (value !== undefined) sent[name] = value;
      const response = await fetch(url, {
        method,
        headers: sent,
        signal: control.signal,
        // A redirected POST would arrive as a GET, and its answer look like success.
        redirect: method === 'GET' ? 'follow' : 'manual',
        ...(body !== undefined && { body }),
      });
      if (!response.ok) throw this.#refusal(response, await response.text());
      return { response, extend, close, failure };
    } catch (cause) {
      close(true);
      throw failure(cause);
    }
  }

  /** Reads an answer, which may be of something that is no Fastpaca server. */
  decode(response: Response, text: string): unknown {
    if (/^application\/json\b/i.test(response.headers.get('content-type') ?? '')) {
      try {
        return this.json.parse(text);
      } catch {
        // A proxy that cut the body short, say.
      }
    }
    throw strange(response, text);
  }

  #refusal(response: Response, text: string): FastpacaError {
    let answer: Record<string, any> = {};
    try {
      answer = this.decode(response, text) as typeof answer;
    } catch {
      // No server of ours; the status still counts.
    }
    if (!answer?.['error']) return strange(response, text);
    return new FastpacaError(String(answer['message']), {
      ...common(response),
      code: answer['error'],
      currentVersion: number(answer['current_version']),
      earliestSeq: number(answer['earliest_seq']),
    });
  }
}

const number = (value: unknown): number | undefined => (value == null ? undefined : Number(value));

const common = (response: Response) => {
  const { status, headers } = response;
  return {
    status,
    retryable: [408, 429, 502, 503, 504].includes(status),
    retryAfterMs: retryAfter(headers.get('retry-after')),
    requestId: headers.get('x-request-id') ?? undefined,
  };
};

export const strange = (response: Response, text: string): FastpacaError => {
  const { url, status, type, headers } = response;
  const what =
    type === 'opaqueredirect' || (status >= 300 && status < 400)
      ? `redirects to ${headers.get('location') ?? 'another address'}`
      : `answered ${status} with ${headers.get('content-type') ?? 'no content type'}: ${JSON.stringify(text.slice(0, 120))}`;
  return new FastpacaError(`${url} ${what}. Is this the address of a Fastpaca server?`, {
    ...common(response),
    code: 'unexpected_response',
  });
};

/** Reads both forms of the header. */
const retryAfter = (value: string | null): number | undefined => {
  if (!value) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return ms >= 0 ? ms : undefined;
};

const baseOf = (given: string | URL = 'http://localhost:4000/v1'): string => {
  let url: URL;
  try {
    url = new URL(given, globalThis.location?.href);
  } catch {
    throw invalid(`baseUrl: want http://HOST:PORT or https://HOST, got ${given}`);
  }
  if (!/^https?:$/.test(url.protocol) || url.search || url.hash) throw invalid(`baseUrl: ${given} is not the address of a server`);
  const base = url.href.replace(/\/+$/, '');
  return base.endsWith('/v1') ? base : `${base}/v1`;
};

const encodeId = (id: string): string => {
  // The two that a URL cannot hold: as a path segment they mean another place.
  if (typeof id !== 'string' || !id || id === '.' || id === '..') throw invalid(`${JSON.stringify(id)} cannot be the id of a conversation`);
  try {
    return encodeURIComponent(id);
  } catch {
    throw invalid('The id of the conversation is not well-formed Unicode');
  }
};
