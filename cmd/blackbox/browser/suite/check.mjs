// What the suites share. It runs in Node and in a page, so it imports nothing.

export class Failure extends Error {}

/** Fails unless two values are the same as JSON. */
export function same(got, want, what = 'value') {
  const [a, b] = [JSON.stringify(got), JSON.stringify(want)];
  if (a !== b) throw new Failure(`${what}: got ${a}, want ${b}`);
}

export function ok(condition, what) {
  if (!condition) throw new Failure(`not so: ${what}`);
}

/** Bounds every wait: against hanging for ever, not a promise of speed. */
const patienceMs = 60_000;

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits until a condition holds. */
export async function until(what, met) {
  for (const end = Date.now() + patienceMs; !(await met()); await pause(5)) {
    if (Date.now() > end) throw new Failure(`never: ${what}`);
  }
}

/** Waits for a promise, but not for ever. */
export function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Failure(`never: ${what}`)), patienceMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Speaks REST as an application without an SDK does. */
export class Rest {
  constructor(base) {
    this.base = base;
  }

  async call(method, path, body) {
    // Restarts of the server are part of the suites.
    for (const end = Date.now() + patienceMs; ; await pause(20)) {
      try {
        const response = await fetch(`${this.base}/v1${path}`, {
          method,
          ...(body && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
        });
        const text = await response.text();
        if (response.status < 500) return { status: response.status, body: text ? JSON.parse(text) : undefined };
        if (Date.now() > end) throw new Failure(`${method} ${path} answered ${response.status}: ${text}`);
      } catch (error) {
        if (error instanceof Failure || Date.now() > end) throw error;
      }
    }
  }

  async create(id) {
    const { status } = await this.call('PUT', `/conversations/${encodeURIComponent(id)}`, {});
    same(status, 200, 'status of PUT');
    return id;
  }

  /** Appends texts, one by one; the ids make a repeated request harmless. */
  async append(id, ...texts) {
    for (const text of texts) {
      const message = { id: `${id.length}-${text}`, role: 'user', parts: [{ type: 'text', text }] };
      const { status, body } = await this.call('POST', `/conversations/${encodeURIComponent(id)}/messages`, { message });
      ok(status === 201 || status === 200, `append answered ${status} ${JSON.stringify(body)}`);
    }
  }

  async tombstone(id) {
    const { status } = await this.call('DELETE', `/conversations/${encodeURIComponent(id)}`);
    same(status, 204, 'status of DELETE');
  }
}

let made = 0;

/** An id that no other test has. */
export const freshId = (what = 'c') => `${what}-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}-${++made}`;

export const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
