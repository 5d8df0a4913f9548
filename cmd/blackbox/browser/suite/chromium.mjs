// Runs one suite in a page of a headless Chromium: node chromium.mjs SUITE.
// Prints the results as JSON. CHROMIUM is the program; the rest as in node.mjs,
// but that of SDK only the directory counts.
import { createReadStream, existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from './check.mjs';
import { Browser } from './devtools.mjs';

const { BASE, CONTROL, PHOENIX, SDK, CHROMIUM } = process.env;
const here = dirname(fileURLToPath(import.meta.url));

// The page has an origin of its own: what it does crosses origins.
const roots = { suite: here, modules: join(here, '../node_modules'), sdk: SDK ? join(dirname(SDK), 'node_modules/@fastpaca/fastpaca/dist/esm') : '' };
const page = `<!doctype html><meta charset="utf-8"><title>suite</title><script type="module">
  import { controlOf, run } from '/suite/runner.mjs';
  import * as suite from '/suite/${process.argv[2]}.mjs';
  const env = { base: ${JSON.stringify(BASE)}, control: controlOf(${JSON.stringify(CONTROL)}), WebSocket, EventSource, socketOptions: {} };
  ${PHOENIX ? `env.phoenix = { ...(await import('/modules/phoenix-${PHOENIX}/priv/static/phoenix.mjs')), version: '${PHOENIX}' };` : ''}
  ${SDK ? `[env.sdk, env.raw] = await Promise.all([import('/sdk/index.js'), import('/sdk/raw.js')]);` : ''}
  window.results = run(suite, env);
</script>`;

const server = createServer((req, res) => {
  if (req.url === '/') return res.writeHead(200, { 'content-type': 'text/html' }).end(page);
  const [, root, rest = ''] = /^\/(\w+)\/(.*)$/.exec(normalize(req.url)) ?? [];
  const file = roots[root] && join(roots[root], rest);
  if (!file || !existsSync(file)) return res.writeHead(404).end();
  res.writeHead(200, { 'content-type': 'text/javascript' });
  return createReadStream(file).pipe(res);
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));

const browser = await Browser.launch(CHROMIUM);
const end = async (code) => {
  await browser.close();
  process.exit(code);
};
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => void end(1));
try {
  const tab = await browser.open(`http://127.0.0.1:${server.address().port}/`);
  await until('the page has loaded the suite', () => tab.evaluate('!!window.results'));
  process.stdout.write(await tab.evaluate('window.results.then((results) => JSON.stringify(results))'));
  await end(0);
} catch (error) {
  console.error(error);
  await end(1);
}
