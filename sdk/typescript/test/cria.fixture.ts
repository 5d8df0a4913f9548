// A conversation with everything that the adapter has a rule for.
import type { Foldable } from '../src/fold.js';

const text = (text: string) => ({ type: 'text', text });
const tool = (name: string, toolCallId: string, more: object) => ({ type: `tool-${name}`, toolCallId, ...more });

export const fixture: Foldable[] = (
  [
    { role: 'system', parts: [text('Be brief.')] },
    { role: 'user', id: 'u1', parts: [text('Weather in Oslo?'), { type: 'file', mediaType: 'image/png', filename: 'map.png', url: 'https://a/b' }] },
    {
      role: 'assistant',
      id: 'a1',
      parts: [
        { type: 'step-start' },
        { type: 'reasoning', text: 'I should look.' },
        text('Looking.'),
        tool('weather', 'c1', { state: 'output-available', input: { city: 'Oslo' }, output: { degrees: 3 } }),
        tool('time', 'c2', { state: 'output-error', input: {}, errorText: 'no clock' }),
        { type: 'step-start' },
        text('Three degrees.'),
        { type: 'source-url', sourceId: 's', url: 'https://a' },
        { type: 'data-note', data: { n: 1 } },
      ],
    },
    { role: 'user', id: 'u2', parts: [text('And in Rome?')] },
    { role: 'assistant', id: 'a2', parts: [tool('weather', 'c3', { state: 'input-available', input: { city: 'Rome' } })] },
    { role: 'assistant', id: 'a2', parts: [tool('weather', 'c3', { state: 'output-available', input: { city: 'Rome' }, output: 'warm' }), text('Warm.')] },
    { role: 'user', parts: [text('Book it.')] },
    { role: 'assistant', parts: [{ type: 'dynamic-tool', toolName: 'book', toolCallId: 'c4', state: 'output-denied', input: { to: 'Rome' }, approval: { id: 'x', approved: false, reason: 'Too far.' } }] },
    { role: 'assistant', parts: [text('I may not.'), tool('book', 'c5', { state: 'input-available', input: {} })] },
    { role: 'assistant', parts: [{ type: 'tool_call', name: 'lookup', payload: { q: 1 } }] },
    { role: 'tool', parts: [{ type: 'tool_result', name: 'lookup', payload: { a: 2 } }] },
    { role: 'observer', parts: [text('Someone else.')] },
    { role: 'assistant', parts: [{ type: 'source-url', sourceId: 's', url: 'https://a' }] },
  ] as Omit<Foldable, 'seq'>[]
).map((message, i) => ({ seq: i + 1, ...message }));
