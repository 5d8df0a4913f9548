// Runs a suite in whatever this is, Node or a page, and tells of each test.

/** Returns [{name, failure?, skipped?, ms}]. */
export async function run(suite, env) {
  const results = [];
  for (const [name, test] of Object.entries(suite.tests)) {
    const started = Date.now();
    const result = { name };
    env.cleanups = [];
    suite.prepare(env);
    try {
      const why = await test(env);
      if (typeof why === 'string') result.skipped = why;
    } catch (error) {
      result.failure = error?.stack ?? String(error);
      if (error?.message && !result.failure.includes(error.message)) result.failure = `${error.message}\n${result.failure}`;
    }
    await Promise.all(env.cleanups.map((clean) => clean()));
    result.ms = Date.now() - started;
    results.push(result);
  }
  return results;
}

/** Asks the harness to break something, and waits until it is whole again. */
export const controlOf = (url) => async (what) => {
  const response = await fetch(`${url}/${what}`, { method: 'POST' });
  if (!response.ok) throw new Error(`${what}: ${await response.text()}`);
};
