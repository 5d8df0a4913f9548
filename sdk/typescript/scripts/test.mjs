// Everything that can be checked without a server: contract, types, build,
// size, packaging, and the unit tests. Prints how long each took. `unit` runs the
// unit tests only, `built` all but the build.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const major = Number(process.versions.node.split('.')[0]);
const bin = (name) => join(root, 'node_modules', '.bin', name);
const step = (name, command, args) => {
  const started = Date.now();
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  console.log(`-- ${name}: ${status === 0 ? 'ok' : 'FAILED'} in ${((Date.now() - started) / 1000).toFixed(1)} s`);
  if (status !== 0) process.exit(1);
};
// The packages of the AI SDK run on Node 22 or newer.
const files = readdirSync(join(root, 'test'))
  .filter((f) => f.endsWith('.test.ts'))
  .filter((f) => {
    const runs = major >= 22 || !f.startsWith('ai-sdk');
    if (!runs) console.log(`== SKIPPED test/${f}: the npm package ai needs Node 22, this is ${process.version}`);
    return runs;
  });
const tests = ['--import', 'tsx', '--test', '--test-reporter=dot', ...files.map((f) => join('test', f))];

if (process.argv[2] === 'unit') {
  step('unit tests', process.execPath, tests);
} else {
  step('generated from the contract', process.execPath, ['generate/run.mjs', '--check-digest']);
  step('types', bin('tsc'), ['-p', 'tsconfig.json']);
  if (process.argv[2] !== 'built') step('build', process.execPath, ['scripts/build.mjs']);
  step('size', process.execPath, ['scripts/size.mjs']);
  const packed = mkdtempSync(join(tmpdir(), 'fastpaca-pack-'));
  process.on('exit', () => rmSync(packed, { recursive: true, force: true }));
  step('pack', 'npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', packed]);
  step('publint', bin('publint'), ['--strict', '--pack', 'false']);
  step('types of the package', bin('attw'), [join(packed, readdirSync(packed)[0]), '--profile', 'node16', '--quiet']);
  step('unit tests', process.execPath, tests);
}
