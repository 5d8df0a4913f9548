/**
 * Codes of this package, beside those that the server answers with (see the
 * API's description; `conversation_not_found`, `conflict` and `cursor_expired`
 * are some).
 */
export type ClientErrorCode =
  /** The server could not be reached, or the connection broke. */
  | 'network'
  /** An attempt took longer than `timeoutMs`. */
  | 'timeout'
  /** The signal was aborted. Whether a write happened is not known. `name` is `AbortError`, `cause` the signal's reason. */
  | 'aborted'
  /** The answer is not one of a Fastpaca server. */
  | 'unexpected_response'
  /** The call cannot be sent as it is. */
  | 'invalid_argument'
  /** Messages are no longer held by the server; see `expectedSeq` and `earliestSeq`. */
  | 'gap';

/** What an error says beside its message. */
export interface FastpacaErrorFields {
  /** The HTTP status; 0 when no answer arrived. */
  status?: number | undefined;
  /** A stable word to program against. */
  code: ClientErrorCode | (string & {});
  /** Whether the same call may succeed later. Calls of this package are safe to repeat. */
  retryable?: boolean | undefined;
  /** What the server asked to wait before. */
  retryAfterMs?: number | undefined;
  /** The server's name of the request, for its logs. */
  requestId?: string | undefined;
  /** With `conflict`: the version of the conversation. */
  currentVersion?: number | undefined;
  /** With `cursor_expired` and `gap`: the lowest sequence still held. */
  earliestSeq?: number | undefined;
  /** With `gap`: the sequence that should have come next. */
  expectedSeq?: number | undefined;
  /** How many times the request was sent. */
  attempts?: number | undefined;
  /** The error behind this one. */
  cause?: unknown;
}

/** How every failure of this package arrives. Decide by `code`, or by `status` and `retryable`. */
export class FastpacaError extends Error {
  readonly status: number;
  readonly code: string;
  readonly retryable: boolean;
  declare readonly retryAfterMs?: number;
  declare readonly requestId?: string;
  declare readonly currentVersion?: number;
  declare readonly earliestSeq?: number;
  declare readonly expectedSeq?: number;
  declare attempts?: number;

  constructor(message: string, { status = 0, code, retryable = false, cause, ...rest }: FastpacaErrorFields) {
    super(message, cause === undefined ? undefined : { cause });
    this.status = status;
    this.code = code;
    this.retryable = retryable;
    for (const [name, value] of Object.entries(rest)) if (value !== undefined) Object.assign(this, { [name]: value });
  }
}

Object.defineProperty(FastpacaError.prototype, 'name', {
  get(this: FastpacaError) {
    return this.code === 'aborted' ? 'AbortError' : 'FastpacaError';
  },
});

export const invalid = (message: string): FastpacaError => new FastpacaError(message, { code: 'invalid_argument' });

export const aborted = (signal: AbortSignal | undefined): FastpacaError =>
  new FastpacaError('The call was aborted', { code: 'aborted', cause: signal?.reason });

/** The code of an error, also of one that another copy of this package has thrown. */
export const codeOf = (error: unknown): string | undefined => (error as FastpacaError | undefined)?.code;
