// Runs one suite in this Node: node node.mjs SUITE. Prints the results as JSON.
// BASE is the server, CONTROL the harness, PHOENIX the version of that client,
// SDK a module of a project in which the packed SDK is installed, WITHOUT a
// pattern of tests to leave out.
import { pathToFileURL } from 'node:url';
import { controlOf, run } from './runner.mjs';

const { BASE, CONTROL, PHOENIX, SDK, WITHOUT } = process.env;
const { tests: all, prepare } = await import(`./${process.argv[2]}.mjs`);
const tests = Object.fromEntries(Object.entries(all).filter(([name]) => !WITHOUT || !new RegExp(WITHOUT).test(name)));
const env = { base: BASE, control: controlOf(CONTROL), WebSocket: globalThis.WebSocket ?? (await import('ws')).WebSocket };

if (PHOENIX) {
  env.phoenix = { ...(await import(`phoenix-${PHOENIX}`)), version: PHOENIX };
  // Where there is a WebSocket nothing needs to be said; Node 20 has none.
  env.socketOptions = globalThis.WebSocket ? {} : { transport: env.WebSocket };
}
if (SDK) Object.assign(env, await import(pathToFileURL(SDK).href));

process.stdout.write(JSON.stringify(await run({ tests, prepare }, env)));
process.exit(0); // what a failed test left open must not keep it
