// Fails when an entry point, bundled and minified, is larger than it may be.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const limits = { 'index.ts': 6 << 10, 'cria/index.ts': 3 << 10, 'ai-sdk/index.ts': 4 << 10 };

for (const [entry, limit] of Object.entries(limits)) {
  const { outputFiles } = await build({
    entryPoints: [join(root, 'src', entry)],
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
  });
  const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
  console.log(`${entry}: ${size} bytes gzipped, of ${limit}`);
  if (size > limit) {
    console.error(`${entry} is too large`);
    process.exitCode = 1;
  }
}
