// The client that @hey-api/openapi-ts generates, as the SDK's package exports it.
import * as raw from '@fastpaca/fastpaca/raw';
import type { Call, Clients } from './calls.js';

const answer = (got: { response?: Response; data?: unknown; error?: unknown }) => ({ status: got.response?.status, body: got.data ?? got.error });

export function connect(base: string): Clients {
  const client = raw.createClient(raw.createConfig({ baseUrl: `${base}/v1` }));
  const path = (c: Call) => ({ id: c.id });
  return {
    putConversation: async (c) => answer(await raw.putConversation({ client, path: path(c), body: c.body as raw.PutConversation })),
    getConversation: async (c) => answer(await raw.getConversation({ client, path: path(c), query: c.query as { consistency?: 'leader' } })),
    tombstoneConversation: async (c) => answer(await raw.tombstoneConversation({ client, path: path(c) })),
    listConversations: async (c) => answer(await raw.listConversations({ client, query: c.query as { prefix?: string; limit?: number } })),
    appendMessages: async (c) =>
      answer(await raw.appendMessages({ client, path: path(c), body: c.body as raw.AppendMessage | raw.AppendMessages, headers: c.headers as { 'Idempotency-Key'?: string } })),
    tailMessages: async (c) => answer(await raw.tailMessages({ client, path: path(c), query: c.query as { limit?: number; offset?: number; before?: number } })),
    replayMessages: async (c) =>
      answer(await raw.replayMessages({ client, path: path(c), query: c.query as { from?: number; limit?: number }, headers: c.headers as { 'X-Fastpaca-Min-Seq'?: number } })),
    conversationEvents: async (c) => {
      const { stream } = await raw.conversationEvents({ client, path: path(c), query: c.query as { from?: number } });
      const events: raw.StreamEvent[] = [];
      for await (const event of stream) {
        events.push(event);
        if (event.type === 'tombstone') break;
      }
      return { status: 200, body: events };
    },
  };
}
