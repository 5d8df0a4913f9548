import type { Message } from './types.js';

/** A part as it is read: anything with a type. */
export type OpenPart = { type: string; [key: string]: any };

/** What folding needs of a message. */
export type Foldable = Pick<Message<OpenPart>, 'seq' | 'role' | 'parts'> & { id?: string; metadata?: unknown };

/**
 * Reads a log as what it means now: of the messages with the same id the newest
 * stands for all, in the place of the first. The log itself keeps every one.
 */
export const foldRevisions = <M extends { id?: string | undefined }>(messages: Iterable<M>): M[] => {
  const folded: M[] = [];
  const places = new Map<string, number>();
  for (const message of messages) {
    const place = message.id === undefined ? undefined : places.get(message.id);
    if (place !== undefined) {
      folded[place] = message;
    } else {
      if (message.id !== undefined) places.set(message.id, folded.length);
      folded.push(message);
    }
  }
  return folded;
};

const isCall = ({ type, state }: OpenPart) => (type === 'tool_call' || type === 'tool-call') && state === undefined;
const isResult = ({ type, state }: OpenPart) => (type === 'tool_result' || type === 'tool-result') && state === undefined;

const callId = (part: OpenPart): string | undefined => part['toolCallId'] ?? part['tool_call_id'] ?? part['id'];
const toolName = (part: OpenPart): string | undefined => part['toolName'] ?? part['name'];
const first = (...values: unknown[]) => values.find((value) => value !== undefined);

/** The value of a result: what a ModelMessage wraps as `{type: 'json', value}` is taken out. */
const resultValue = (part: OpenPart): { value: unknown; failed: boolean } => {
  const output = first(part['output'], part['payload'], part['result'], part['content']) as any;
  const wrapped = output && typeof output === 'object' && typeof output.type === 'string' && 'value' in output;
  const failed = part['error'] !== undefined || part['isError'] === true || (wrapped && /^error-/.test(output.type));
  return { value: wrapped ? output.value : first(part['error'], output) ?? null, failed: !!failed };
};

/**
 * Folds revisions, and turns tool calls and results of other dialects
 * (`tool_call` and `tool_result`, and the parts of a ModelMessage) into the
 * `dynamic-tool` parts of a UIMessage. A result is joined with its call, by id
 * or else by the name of the tool, also when it stands in a later message; one
 * without a call is left out, and so is a message of nothing else.
 */
export const normalize = <M extends Foldable>(messages: Iterable<M>): M[] => {
  const open: OpenPart[] = [];
  const normalized: M[] = [];
  for (const message of foldRevisions(messages)) {
    if (!message.parts.some((part) => isCall(part) || isResult(part))) {
      normalized.push(message);
      continue;
    }
    const parts: OpenPart[] = [];
    for (const [i, part] of message.parts.entries()) {
      if (isCall(part)) {
        const call: OpenPart = {
          type: 'dynamic-tool',
          toolName: toolName(part) ?? 'unknown',
          toolCallId: callId(part) ?? `${message.seq}-${i}`,
          state: 'input-available',
          input: first(part['input'], part['payload'], part['arguments'], part['args']) ?? {},
        };
        open.push(call);
        parts.push(call);
      } else if (isResult(part)) {
        settle(open, part);
      } else {
        parts.push(part);
      }
    }
    if (parts.length) normalized.push({ ...message, parts });
  }
  return normalized;
};

const settle = (open: OpenPart[], result: OpenPart) => {
  const [id, name] = [callId(result), toolName(result)];
  const named = (call: OpenPart) => (name === undefined ? open.length === 1 : call['toolName'] === name);
  const at = open.findIndex((call) => (id === undefined ? named(call) : call['toolCallId'] === id));
  if (at < 0) return;
  const [call] = open.splice(at, 1);
  const { value, failed } = resultValue(result);
  if (failed) Object.assign(call!, { state: 'output-error', errorText: typeof value === 'string' ? value : JSON.stringify(value) });
  else Object.assign(call!, { state: 'output-available', output: value });
};
