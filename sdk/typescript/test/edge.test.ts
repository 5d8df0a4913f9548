// The package where there is nothing but what the web has: no process, no Buffer,
// no require, as in browsers and on edge runtimes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createContext, runInContext } from 'node:vm';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { Model } from './model.js';

const web = { AbortController, AbortSignal, Response, ReadableStream, TextDecoder, TextEncoder, URL, URLSearchParams, clearTimeout, crypto, fetch, setTimeout };

test('runs with the globals of the web', async (t) => {
  const model = await Model.start(t);
  const { outputFiles } = await build({
    stdin: {
      contents: `export * from './index.js'; export * from './ai-sdk/index.js'; export * from './cria/index.js';`,
      resolveDir: fileURLToPath(new URL('../src', import.meta.url)),
    },
    bundle: true,
    format: 'iife',
    globalName: 'fastpaca',
    platform: 'neutral',
    write: false,
  });
  const context = createContext({ ...web });
  runInContext(outputFiles[0]!.text, context);
  const seqs = await runInContext(
    `(async (baseUrl) => {
      const client = fastpaca.createClient({ baseUrl });
      const conv = await client.conversation('a', {});
      await conv.append({ role: 'user', parts: [{ type: 'text', text: 'hi' }] });
      await fastpaca.createChatStore(client).saveMessage('a', { id: 'm', role: 'user', parts: [{ type: 'text', text: 'ho' }] });
      const seqs = [];
      for await (const m of conv.subscribe({ from: 1 })) {
        seqs.push(m.seq);
        if (m.seq === 2) break;
      }
      return seqs.join();
    })`,
    context,
  )(model.url);
  assert.equal(seqs, '1,2');
});
