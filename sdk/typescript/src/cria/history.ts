import { type Foldable, type OpenPart, normalize } from '../fold.js';
import type { Message } from '../types.js';

export type CriaRole = 'system' | 'developer' | 'user' | 'assistant' | 'tool';

/** How a provider of Cria wants what goes into tools and comes out of them. */
export interface ToolIO {
  /** The provider of `@fastpaca/cria/ai-sdk`. */
  'ai-sdk': {
    callInput: unknown;
    resultOutput: { type: 'text' | 'error-text'; value: string } | { type: 'json'; value: any };
  };
  /** Those of `@fastpaca/cria/openai`: all of it text. */
  openai: { callInput: string; resultOutput: string };
  /** The provider of `@fastpaca/cria/anthropic`. */
  anthropic: { callInput: unknown; resultOutput: string };
}

export type ToolFormat = keyof ToolIO;

export type CriaPart<IO extends ToolIO[ToolFormat]> =
  | { type: 'text'; text: string }
  | { type: 'reasoning'; text: string }
  | { type: 'tool-call'; toolCallId: string; toolName: string; input: IO['callInput'] }
  | { type: 'tool-result'; toolCallId: string; toolName: string; output: IO['resultOutput'] };

export interface CriaMessageNode<IO extends ToolIO[ToolFormat]> {
  kind: 'message';
  role: CriaRole;
  id: string;
  children: CriaPart<IO>[];
}

export interface CriaScope<IO extends ToolIO[ToolFormat]> {
  kind: 'scope';
  priority: number;
  id: string;
  children: CriaMessageNode<IO>[];
}

export type CriaNode<IO extends ToolIO[ToolFormat]> = CriaMessageNode<IO> | CriaScope<IO>;

export interface CriaHistoryOptions<F extends ToolFormat = ToolFormat> {
  /** What the provider of the prompt wants of tools: `ai-sdk` if absent. */
  tools?: F | undefined;
  /** The text that stands for a file; `[file NAME, TYPE]` if absent. Nothing leaves it out. */
  file?: ((part: OpenPart) => string | undefined) | undefined;
  /** The text that stands for a `data-…` part; left out if absent. */
  data?: ((part: OpenPart) => string | undefined) | undefined;
}

const roles = new Set<string>(['system', 'developer', 'user', 'assistant']);

const asText = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value ?? null));

/** What a settled tool part has to say. */
interface Result {
  failed: boolean;
  value: unknown;
}

const formats: { [F in ToolFormat]: { input(value: unknown): ToolIO[F]['callInput']; output(result: Result): ToolIO[F]['resultOutput'] } } = {
  'ai-sdk': {
    input: (value) => value ?? {},
    output: ({ failed, value }) =>
      failed ? { type: 'error-text', value: asText(value) } : typeof value === 'string' ? { type: 'text', value } : { type: 'json', value: value ?? null },
  },
  openai: { input: (value) => asText(value ?? {}), output: ({ value }) => asText(value) },
  anthropic: { input: (value) => value ?? {}, output: ({ value }) => asText(value) },
};

const resultOf = (part: OpenPart): Result | undefined => {
  switch (part['state']) {
    case 'output-available':
      return part['preliminary'] ? undefined : { failed: false, value: part['output'] };
    case 'output-error':
      return { failed: true, value: part['errorText'] };
    case 'output-denied':
      return { failed: true, value: part['approval']?.reason ?? 'Tool call execution denied.' };
    default:
      return undefined;
  }
};

/**
 * Turns messages of a conversation into nodes for `truncate` and the others of
 * Cria. Given the messages as they are, Cria would take them for a layout and
 * render each of them empty.
 *
 * Every message is one child, so that it is kept or dropped as a whole: a node,
 * or a scope when it takes several, as a tool call and its result do. Calls
 * without a result are left out, because models refuse them. Of the revisions
 * of a message the newest counts.
 */
export const criaHistory = <F extends ToolFormat = 'ai-sdk'>(
  messages: Iterable<Message<any> | Foldable>,
  options: CriaHistoryOptions<F> = {},
): CriaNode<ToolIO[F]>[] => {
  const history: CriaNode<ToolIO[F]>[] = [];
  for (const message of normalize(messages as Iterable<Foldable>)) {
    const id = `fastpaca:${message.seq}`;
    const nodes = message.role === 'assistant' ? assistantNodes(message, id, options) : plainNodes(message, id, options);
    if (nodes.length === 1) history.push(nodes[0]!);
    else if (nodes.length) history.push({ kind: 'scope', priority: 0, id, children: nodes });
  }
  return history;
};

/** The text of a part that is not a tool's, if it has any. */
const textOf = (part: OpenPart, { file, data }: CriaHistoryOptions): string | undefined => {
  if (part.type === 'text') return part['text'];
  if (part.type.startsWith('data-')) return data?.(part);
  if (part.type !== 'file' && part.type !== 'reasoning-file') return undefined;
  return file ? file(part) : `[file ${part['filename'] ?? 'without a name'}, ${part['mediaType'] ?? 'unknown type'}]`;
};

/** Adds a text. Cria joins texts as they are, so what stands for something else gets a line of its own. */
const say = (children: CriaPart<any>[], { type }: OpenPart, text: string | undefined) => {
  if (text) children.push({ type: 'text', text: type === 'text' || !children.length ? text : `\n${text}` });
};

const plainNodes = <F extends ToolFormat>({ role, parts }: Foldable, id: string, options: CriaHistoryOptions<F>): CriaMessageNode<ToolIO[F]>[] => {
  const children: CriaPart<ToolIO[F]>[] = [];
  for (const part of parts) say(children, part, textOf(part, options));
  return children.length ? [{ kind: 'message', role: roles.has(role) ? (role as CriaRole) : 'user', id, children }] : [];
};

const assistantNodes = <F extends ToolFormat>({ parts }: Foldable, id: string, options: CriaHistoryOptions<F>) => {
  type IO = ToolIO[F];
  const { input, output } = formats[options.tools ?? ('ai-sdk' as F)];
  const nodes: CriaMessageNode<IO>[] = [];
  let said: CriaPart<IO>[] = [];
  let results: CriaPart<IO>[] = [];
  const step = () => {
    if (said.length) nodes.push({ kind: 'message', role: 'assistant', id, children: said });
    for (const result of results) nodes.push({ kind: 'message', role: 'tool', id, children: [result] });
    [said, results] = [[], []];
  };
  for (const part of parts) {
    const tool = part.type === 'dynamic-tool' || (part.type.startsWith('tool-') && part['toolCallId'] !== undefined);
    if (tool) {
      const result = resultOf(part);
      if (!result) continue;
      const { toolCallId, toolName = part.type.slice('tool-'.length) } = part as OpenPart & { toolCallId: string; toolName?: string };
      said.push({ type: 'tool-call', toolCallId, toolName, input: input(part['input'] ?? part['rawInput']) });
      results.push({ type: 'tool-result', toolCallId, toolName, output: output(result) });
      continue;
    }
    if (part.type === 'step-start') step();
    const text = part.type === 'reasoning' ? (part['text'] as string) : textOf(part, options);
    if (!text) continue;
    if (results.length) step(); // what was said after a result was said of it
    if (part.type === 'reasoning') said.push({ type: 'reasoning', text });
    else say(said, part, text);
  }
  step();
  return nodes.map((node, i) => (nodes.length > 1 ? { ...node, id: `${id}:${i + 1}` } : node));
};
