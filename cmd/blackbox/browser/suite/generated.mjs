// The cases of cases.json through a generated client: node generated.mjs CASES
// CLIENT, of which CLIENT is a module of ours that wraps it. BASE is the server.
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { ok, same } from './check.mjs';
import { run } from './runner.mjs';

const [, , cases, client] = process.argv;
const { connect } = await import(pathToFileURL(client).href);
const operations = connect(process.env.BASE);
const made = Date.now().toString(36);

/** What of a value was asked for; objects may have more. */
const asked = (got, want) => {
  if (Array.isArray(want)) return Array.isArray(got) ? got.map((one, i) => (i < want.length ? asked(one, want[i]) : one)) : got;
  if (!want || !got || typeof want !== 'object' || typeof got !== 'object') return got;
  return Object.fromEntries(Object.keys(want).map((name) => [name, asked(got[name], want[name])]));
};

const named = (value, id) => JSON.parse(JSON.stringify(value).replaceAll('$ID', id));

const tests = {};
for (const { name, calls } of JSON.parse(readFileSync(cases, 'utf8'))) {
  tests[name] = async () => {
    for (const [i, { want, ...call }] of calls.entries()) {
      const what = `call ${i + 1}, ${call.op}`;
      const operation = operations[call.op];
      if (!operation) return `${call.op} is not generated`;
      const id = `${made}/${call.id ?? calls[0].id}`;
      const { status, body } = await operation({ ...named(call, id), id });
      same(status, want.status, `status of ${what}: ${JSON.stringify(body)}`);
      if (want.body) same(asked(body, named(want.body, id)), named(want.body, id), what);
    }
  };
}
ok(Object.keys(tests).length > 0, 'there are cases');
process.stdout.write(JSON.stringify(await run({ tests, prepare() {} }, {})), () => process.exit(0));
