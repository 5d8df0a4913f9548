// Measures the CPU that an append takes of the client beyond the bare fetch of
// the same request: node scripts/overhead.mjs [ROUNDS]. The server is another
// process that answers at once.
import { fork } from 'node:child_process';
import { createServer } from 'node:http';

if (process.send) {
  const answer = JSON.stringify({ seq: 1, version: 1, token_count: 1 });
  const server = createServer((req, res) => {
    req.resume().on('end', () => res.writeHead(201, { 'content-type': 'application/json' }).end(answer));
  }).listen(0, '127.0.0.1', () => process.send(server.address().port));
} else {
  const { createClient } = await import('../dist/esm/index.js');
  const child = fork(new URL(import.meta.url).pathname);
  const port = await new Promise((done) => child.once('message', done));
  const url = `http://127.0.0.1:${port}`;
  const conv = createClient({ baseUrl: url }).ref('chat-123');
  const message = { role: 'user', parts: [{ type: 'text', text: 'x'.repeat(300) }] };
  const ways = {
    fetch: async () => {
      const body = JSON.stringify({ message: { id: '0123456789abcdef0123456789abcdef', ...message } });
      const response = await fetch(`${url}/v1/conversations/chat-123/messages`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
      return response.json();
    },
    append: () => conv.append(message),
  };
  const appends = 250;
  const rounds = Number(process.argv[2] ?? 40);
  const best = {};
  // In short turns, and the best of each: what disturbs a turn does not make it faster.
  for (let round = 0; round < rounds; round++) {
    for (const [name, call] of Object.entries(ways)) {
      const before = process.cpuUsage();
      for (let i = 0; i < appends; i++) await call();
      const { user, system } = process.cpuUsage(before);
      best[name] = Math.min(best[name] ?? Infinity, (user + system) / appends);
    }
  }
  console.log(`fetch ${best.fetch.toFixed(1)} µs, append ${best.append.toFixed(1)} µs of CPU: ${(best.append - best.fetch).toFixed(1)} µs over it`);
  child.kill();
}
