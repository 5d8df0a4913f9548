// Run before an example starts: builds the SDK beside it, and installs what the
// example needs, unless that was done before.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const sdk = join(dirname(fileURLToPath(import.meta.url)), '../typescript');

const npm = (cwd, ...args) => {
  const { status } = spawnSync('npm', args, { cwd, stdio: ['ignore', 2, 2], shell: process.platform === 'win32' });
  if (status !== 0) process.exit(1);
};

if (!existsSync(join(sdk, 'dist/esm/index.js'))) {
  if (!existsSync(join(sdk, 'node_modules'))) npm(sdk, 'ci', '--no-audit', '--no-fund');
  npm(sdk, 'run', '--silent', 'build');
}
if (!existsSync('node_modules')) npm('.', 'ci', '--no-audit', '--no-fund');
