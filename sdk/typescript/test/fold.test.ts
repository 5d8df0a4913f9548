import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toUIMessages } from '../src/ai-sdk/index.js';

let seq = 0;
const message = (role: string, parts: object[], more: object = {}) =>
  ({ seq: ++seq, role, parts, metadata: {}, token_count: 0, inserted_at: '', ...more }) as never;
const text = (text: string) => ({ type: 'text', text });

test('the newest revision stands in the place of the first', () => {
  const folded = toUIMessages([
    message('user', [text('a')], { id: '1', metadata: { x: 1 } }),
    message('assistant', [text('b')], { id: '2' }),
    message('user', [text('c')], { id: '3' }),
    message('assistant', [text('b2')], { id: '2' }),
    message('user', [text('a2')], { id: '1' }),
  ]);
  assert.deepEqual(folded, [
    { id: '1', role: 'user', parts: [text('a2')] },
    { id: '2', role: 'assistant', parts: [text('b2')] },
    { id: '3', role: 'user', parts: [text('c')] },
  ]);
});

test('messages without an id, and roles that there are not', () => {
  seq = 10;
  const folded = toUIMessages([message('user', [text('a')]), message('user', [text('a')]), message('developer', [text('b')]), message('agent', [text('c')])]);
  assert.deepEqual(folded.map((m) => [m.id, m.role]), [
    ['seq-11', 'user'],
    ['seq-12', 'user'],
    ['seq-13', 'system'],
    ['seq-14', 'assistant'],
  ]);
});

test('tool calls and results of other dialects', () => {
  seq = 0;
  const folded = toUIMessages([
    message('assistant', [text('I look'), { type: 'tool_call', name: 'lookup', payload: { a: 1 } }, { type: 'tool_call', name: 'clock', payload: {} }]),
    message('tool', [{ type: 'tool_result', name: 'clock', payload: 'noon' }, { type: 'tool_result', name: 'lookup', payload: { b: 2 } }]),
    message('assistant', [{ type: 'tool-call', toolCallId: 'c1', toolName: 'sum', input: [1, 2] }]),
    message('tool', [{ type: 'tool-result', toolCallId: 'c1', toolName: 'sum', output: { type: 'json', value: 3 } }]),
    message('assistant', [{ type: 'tool_call', name: 'fails', payload: {} }, { type: 'tool_result', error: 'no' }]),
    message('tool', [{ type: 'tool_result', tool_call_id: 'unknown', payload: 1 }]),
    message('assistant', [{ type: 'tool_call', name: 'never', payload: {} }]),
    // A UIMessage's own part of a tool of that name is none of these.
    message('assistant', [{ type: 'tool-call', toolCallId: 'c2', state: 'output-available', input: {}, output: 1 }]),
  ]);
  const tool = (toolName: string, toolCallId: string, state: string, more: object) => ({ type: 'dynamic-tool', toolName, toolCallId, state, ...more });
  assert.deepEqual(folded.map((m) => m.parts), [
    [text('I look'), tool('lookup', '1-1', 'output-available', { input: { a: 1 }, output: { b: 2 } }), tool('clock', '1-2', 'output-available', { input: {}, output: 'noon' })],
    [tool('sum', 'c1', 'output-available', { input: [1, 2], output: 3 })],
    [tool('fails', '5-0', 'output-error', { input: {}, errorText: 'no' })],
    [tool('never', '7-0', 'input-available', { input: {} })],
    [{ type: 'tool-call', toolCallId: 'c2', state: 'output-available', input: {}, output: 1 }],
  ]);
});

test('what was read is not modified', () => {
  const messages = [message('assistant', [{ type: 'tool_call', name: 'a' }], { id: '1' }), message('tool', [{ type: 'tool_result', name: 'a', payload: 1 }])];
  const before = JSON.stringify(messages);
  toUIMessages(messages);
  assert.equal(JSON.stringify(messages), before);
});
