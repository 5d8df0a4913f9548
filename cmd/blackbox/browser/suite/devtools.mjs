// Starts a headless Chromium and speaks its DevTools protocol, as much of it as
// it takes to open pages and ask them.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WebSocket } from 'ws';
import { pause, until } from './check.mjs';

const flags = [
  '--headless=new',
  '--remote-debugging-port=0',
  '--no-first-run',
  '--no-default-browser-check',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-extensions',
  '--disable-background-networking',
  '--disable-component-update',
  // Nobody looks at the pages, and their timers are to run all the same.
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
  // Chromium refuses to run its sandbox as root; what it loads is of this repository.
  ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
];

export class Browser {
  #process;
  #profile;
  #socket;
  #pending = new Map();
  #next = 0;

  static async launch(program) {
    const browser = new Browser();
    await browser.#start(program);
    return browser;
  }

  async #start(program) {
    this.#profile = mkdtempSync(join(tmpdir(), 'fastpaca-chromium-'));
    this.#process = spawn(program, [...flags, `--user-data-dir=${this.#profile}`, 'about:blank'], { stdio: ['ignore', 'ignore', 'pipe'] });
    let noise = '';
    this.#process.stderr.on('data', (data) => (noise = (noise + data).slice(-20_000)));
    this.#process.on('exit', (code) => {
      const error = new Error(`Chromium ended with ${code}:\n${noise}`);
      for (const { reject } of this.#pending.values()) reject(error);
      this.#pending.clear();
    });
    const written = join(this.#profile, 'DevToolsActivePort');
    await until(`Chromium listens: ${noise}`, () => existsSync(written) && readFileSync(written, 'utf8').includes('\n'));
    const [port, path] = readFileSync(written, 'utf8').trim().split('\n');
    this.#socket = new WebSocket(`ws://127.0.0.1:${port}${path}`);
    await new Promise((open, fail) => this.#socket.once('open', open).once('error', fail));
    this.#socket.on('message', (text) => this.#receive(JSON.parse(text)));
  }

  #receive({ id, result, error, method, params }) {
    if (method === 'Runtime.exceptionThrown') console.error(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    const waiting = this.#pending.get(id);
    if (!waiting) return;
    this.#pending.delete(id);
    if (error) waiting.reject(new Error(error.message));
    else waiting.resolve(result);
  }

  send(method, params = {}, sessionId = undefined) {
    const id = ++this.#next;
    this.#socket.send(JSON.stringify({ id, method, params, sessionId }));
    return new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
  }

  /** Opens a page; it can be asked to evaluate expressions, promises too. */
  async open(url) {
    const { targetId } = await this.send('Target.createTarget', { url });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    await this.send('Runtime.enable', {}, sessionId);
    return {
      evaluate: async (expression) => {
        const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
        if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
        return result.value;
      },
      reload: () => this.send('Page.reload', {}, sessionId),
      type: (text) => this.send('Input.insertText', { text }, sessionId),
    };
  }

  /** Ends the browser and removes its profile. */
  async close() {
    const gone = new Promise((done) => this.#process.once('exit', done));
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      // Asked first: killed, it leaves children that still write to the profile.
      if (this.#socket) await Promise.race([this.send('Browser.close').catch(() => {}), pause(2_000)]);
      await Promise.race([gone, pause(2_000)]);
      this.#process.kill('SIGKILL');
      await gone;
    }
    try {
      rmSync(this.#profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
    } catch (error) {
      console.error(`${this.#profile} is left behind: ${error.message}`);
    }
  }
}
