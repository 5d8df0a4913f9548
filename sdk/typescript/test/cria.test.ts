// Against a stand-in for the part of Cria that takes nodes and makes messages of
// them, and a golden file of what Cria 1.7.7 made of the same: @fastpaca/cria is
// not on the public registry.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createClient } from '../src/index.js';
import { type CriaNode, type CriaMessageNode, type ToolIO, criaHistory, createSummaryStore } from '../src/cria/index.js';
import { fixture } from './cria.fixture.js';
import { Model } from './model.js';

type Node = CriaNode<ToolIO['ai-sdk']>;

/** Nodes as Cria's chat protocol renders them: text joined, text before reasoning before calls. */
function render(nodes: Node[]): object[] {
  return nodes.flatMap((node) => (node.kind === 'scope' ? render(node.children) : [renderMessage(node)]));
}

function renderMessage({ role, children }: CriaMessageNode<ToolIO['ai-sdk']>): object {
  const joined = (type: 'text' | 'reasoning') => children.map((part) => (part.type === type ? part.text : '')).join('');
  const [text, reasoning] = [joined('text'), joined('reasoning')];
  const calls = children.filter((part) => part.type === 'tool-call');
  if (role === 'tool') return { role, content: children };
  if (role !== 'assistant' || (!reasoning && !calls.length)) return { role, content: text };
  return { role, content: [...(text ? [{ type: 'text', text }] : []), ...(reasoning ? [{ type: 'reasoning', text: reasoning }] : []), ...calls] };
}

test('what Cria renders', () => {
  const golden = JSON.parse(readFileSync(new URL('cria.golden.json', import.meta.url), 'utf8')) as object[];
  // The prompt of the golden file has a system message before and a question behind.
  assert.deepEqual(render(criaHistory(fixture)), golden.slice(1, -1));
});

test('a message is one child, whatever it takes', () => {
  const nodes = criaHistory(fixture);
  assert.deepEqual(
    nodes.map((node) => [node.kind, node.id]),
    [
      ['message', 'fastpaca:1'],
      ['message', 'fastpaca:2'],
      ['scope', 'fastpaca:3'],
      ['message', 'fastpaca:4'],
      ['scope', 'fastpaca:6'],
      ['message', 'fastpaca:7'],
      ['scope', 'fastpaca:8'],
      ['message', 'fastpaca:9'],
      ['scope', 'fastpaca:10'],
      ['message', 'fastpaca:12'],
    ],
  );
  const scope = nodes[2] as Extract<Node, { kind: 'scope' }>;
  assert.deepEqual(scope.children.map((node) => node.role), ['assistant', 'tool', 'tool', 'assistant']);
  assert.equal(scope.priority, 0);
  assert.equal(new Set(scope.children.map((node) => node.id)).size, 4);
});

test('wherever a history is cut, no result is without its call', () => {
  const nodes = criaHistory(fixture);
  for (let cut = 0; cut <= nodes.length; cut++) {
    const open = new Set<string>();
    for (const { content } of render(nodes.slice(cut)) as { content: unknown }[]) {
      for (const part of Array.isArray(content) ? content : []) {
        if (part.type === 'tool-call') open.add(part.toolCallId);
        if (part.type === 'tool-result') assert(open.delete(part.toolCallId), `orphan ${part.toolCallId} when cut at ${cut}`);
      }
    }
    assert.equal(open.size, 0);
  }
});

test('files, data and the tools of other providers', () => {
  const parts = [{ type: 'text', text: 'See' }, { type: 'file', mediaType: 'text/plain', url: 'x' }, { type: 'data-note', data: 'n' }];
  const message = { seq: 1, role: 'user', parts };
  const texts = (nodes: { children: object[] }[]) => nodes[0]!.children.map((part) => (part as { text: string }).text);
  assert.deepEqual(texts(criaHistory([message]) as never), ['See', '\n[file without a name, text/plain]']);
  assert.deepEqual(texts(criaHistory([message], { file: () => undefined, data: ({ data }) => `note ${data}` }) as never), ['See', '\nnote n']);
  assert.deepEqual(criaHistory([{ seq: 1, role: 'user', parts: [parts[2]!] }]), []);

  const call = { type: 'dynamic-tool', toolName: 't', toolCallId: 'c', state: 'output-available', input: { a: 1 }, output: { b: 2 } };
  const io = (tools: 'openai' | 'anthropic') => {
    const [scope] = criaHistory([{ seq: 1, role: 'assistant', parts: [call] }], { tools });
    const [said, result] = (scope as { children: { children: any[] }[] }).children;
    return [said!.children[0].input, result!.children[0].output];
  };
  assert.deepEqual(io('openai'), ['{"a":1}', '{"b":2}']);
  assert.deepEqual(io('anthropic'), [{ a: 1 }, '{"b":2}']);
});

test('summaries in side conversations', async (t) => {
  const model = await Model.start(t);
  const store = createSummaryStore(createClient({ baseUrl: model.url }));
  assert.equal(await store.get('chat-1'), null);
  assert.equal(await store.delete('chat-1'), false);
  await store.set('chat-1', { content: 'short' });
  const first = await store.get('chat-1');
  assert.equal(first!.data.content, 'short');
  await store.set('chat-1', { content: 'shorter' }, { through_seq: 12 });
  const second = await store.get('chat-1');
  assert.deepEqual([second!.data.content, second!.metadata, second!.createdAt], ['shorter', { through_seq: 12 }, first!.createdAt]);
  assert.equal(await store.delete('chat-1'), true);
  assert.equal(await store.get('chat-1'), null);
  await store.set('chat-1', { content: 'again' });
  assert.equal((await store.get('chat-1'))!.data.content, 'again');
  assert(model.logs.has('chat-1:summary'));
});
