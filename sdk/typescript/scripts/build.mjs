// Writes dist: ESM and declarations by tsc, and the same files as CommonJS by
// esbuild. Each half has a package.json that says what its files are, so that
// both the code and the types of either are right for whoever resolves them.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');

rmSync(join(root, 'dist'), { recursive: true, force: true });
execFileSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });

const esm = join(root, 'dist/esm');
const cjs = join(root, 'dist/cjs');
const files = readdirSync(esm, { recursive: true });
await build({
  absWorkingDir: root,
  entryPoints: files.filter((f) => f.endsWith('.js')).map((f) => join('src', f.replace(/\.js$/, '.ts'))),
  outbase: 'src',
  outdir: 'dist/cjs',
  format: 'cjs',
  // Also writes down the names of exports, for those who import CommonJS.
  platform: 'node',
  target: 'es2022',
  sourcemap: true,
  logLevel: 'warning',
});
mkdirSync(cjs, { recursive: true });
for (const file of files.filter((f) => f.endsWith('.d.ts'))) cpSync(join(esm, file), join(cjs, file));
writeFileSync(join(esm, 'package.json'), '{ "type": "module", "sideEffects": false }\n');
writeFileSync(join(cjs, 'package.json'), '{ "type": "commonjs", "sideEffects": false }\n');
