// Starts the examples of the SDK as their READMEs say, and uses them: node
// examples.mjs. BASE and CHROMIUM as in chromium.mjs, NEWEST is a Node of version
// 22 or newer, EXAMPLES their directory, AGENT the program of the one in Go.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { Rest, freshId, ok, same, until } from './check.mjs';
import { Browser } from './devtools.mjs';
import { run } from './runner.mjs';

const { BASE, CHROMIUM, NEWEST, EXAMPLES, AGENT } = process.env;

/** Starts a program of an example, whose output is kept. */
function start(env, example, node, ...args) {
  const program = spawn(node, args, { cwd: join(EXAMPLES, example), env: { ...process.env, FASTPACA_URL: BASE, PORT: '0' } });
  const started = { program, out: '', exited: new Promise((done) => program.once('exit', done)) };
  for (const stream of [program.stdout, program.stderr]) stream.on('data', (data) => (started.out += data));
  env.cleanups.push(async () => {
    program.kill('SIGTERM');
    await started.exited;
  });
  return started;
}

const tests = {
  async 'worker: answers once, also when it is killed'(env) {
    const id = await env.rest.create(freshId());
    await env.rest.append(id, 'one', 'two words');
    const first = start(env, 'worker', process.execPath, 'worker.mjs', id);
    await until(`two answers: ${first.out}`, () => first.out.match(/assistant:/g)?.length === 2);
    first.program.kill('SIGKILL');
    await first.exited;
    await env.rest.append(id, 'and three words');
    const second = start(env, 'worker', process.execPath, 'worker.mjs', id);
    await until(`the third answer: ${second.out}`, () => /assistant: 15 characters/.test(second.out));
    const { body } = await env.rest.call('GET', `/conversations/${id}/tail`);
    same(
      body.messages.filter((m) => m.role === 'assistant').map((m) => m.id),
      ['answer-to-1', 'answer-to-2', 'answer-to-5'],
    );
    second.program.kill('SIGTERM');
    same(await second.exited, 0, 'exit code');
  },

  async 'worker: by itself'(env) {
    const worker = start(env, 'worker', process.execPath, 'worker.mjs');
    await until(`two answers: ${worker.out}`, () => worker.out.match(/assistant:/g)?.length === 2);
  },

  async 'agent: goes on at the step where it was killed'(env) {
    const id = await env.rest.create(freshId());
    await env.rest.append(id, 'What is the weather in Oslo?', 'And in Rome?');
    // Killed when the first of its steps is stored, and again at the second.
    for (const step of ['call-1', 'result-1']) {
      const killed = start(env, 'agent', AGENT, id);
      await until(`${step} is stored: ${killed.out}`, async () => {
        const { body } = await env.rest.call('GET', `/conversations/${id}/tail`);
        return body.messages.some((m) => m.id === step);
      });
      killed.program.kill('SIGKILL');
      await killed.exited;
    }
    const last = start(env, 'agent', AGENT, id);
    await until(`the answers: ${last.out}`, () => /It is 4 degrees in Oslo.*It is 4 degrees in Rome/s.test(last.out));
    const { body } = await env.rest.call('GET', `/conversations/${id}/tail`);
    same(
      body.messages.filter((m) => m.role !== 'user').map((m) => m.id),
      ['call-1', 'result-1', 'answer-1', 'call-2', 'result-2', 'answer-2'],
    );
    last.program.kill('SIGTERM');
    same(await last.exited, 0, 'exit code');
  },

  async 'agent: by itself'(env) {
    const agent = start(env, 'agent', AGENT);
    await until(`an answer: ${agent.out}`, () => /It is 4 degrees in Oslo/.test(agent.out));
  },

  async 'cria: nodes of a prompt'(env) {
    const prompt = start(env, 'cria', process.execPath, 'prompt.mjs');
    same(await prompt.exited, 0, prompt.out);
    ok(/"toolName": "weather"/.test(prompt.out), prompt.out);
  },

  async 'chat: an answer goes on over a refresh, and two tabs agree'(env) {
    const server = start(env, 'chat', NEWEST, 'server.mjs');
    await until(`the server listens: ${server.out}`, () => /open (http\S+)/.test(server.out));
    const url = `${/open (http[^?]+)/.exec(server.out)[1]}?chat=${freshId()}`;
    const browser = await Browser.launch(CHROMIUM);
    env.cleanups.push(() => browser.close());
    const [one, two] = [await browser.open(url), await browser.open(url)];
    const answer = (tab) => tab.evaluate(`[...document.querySelectorAll('.assistant')].at(-1)?.innerText ?? ''`);
    const shown = (tab) => tab.evaluate(`[...document.querySelectorAll('p.user, p.assistant')].map((p) => p.innerText)`);
    for (const tab of [one, two]) await until('the page is there', () => tab.evaluate(`!!document.querySelector('input')`));

    await one.evaluate(`document.querySelector('input').focus()`);
    await one.type('Are you there?');
    await one.evaluate(`document.querySelector('button').click()`);
    const some = async (tab) => (await answer(tab)).length > 20;
    await until('the answer begins', () => some(one));
    await until('the other tab follows', () => some(two));
    await one.reload();
    await until('it is there after a refresh', () => some(one));
    const before = (await answer(one)).length;
    await until('it goes on', async () => (await answer(one)).length > before);
    const done = /went on\.\s*$/;
    const all = async (tab) => done.test(await answer(tab)) && (await answer(tab)).match(/went on/g).length === 2;
    for (const tab of [one, two]) await until('the answer is whole', () => all(tab));
    same(await shown(one), await shown(two));
    same((await shown(one)).length, 2);
    await one.reload();
    await until('it is there when it has ended', () => all(one));
    same(await shown(one), await shown(two));
  },
};

const prepare = (env) => {
  env.rest = new Rest(BASE);
};
if (!CHROMIUM || !NEWEST) delete tests['chat: an answer goes on over a refresh, and two tabs agree'];
process.stdout.write(JSON.stringify(await run({ tests, prepare }, {})), () => process.exit(0));
