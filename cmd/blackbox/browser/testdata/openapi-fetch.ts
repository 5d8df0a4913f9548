// openapi-fetch over the types that openapi-typescript generates.
import createClient from 'openapi-fetch';
import type { components, paths } from './contract.js';
import type { Call, Clients } from './calls.js';

type Schemas = components['schemas'];
type Query<Path extends keyof paths> = paths[Path]['get'] extends { parameters: { query?: infer Q } } ? Q : never;

const answer = (got: { response: Response; data?: unknown; error?: unknown }) => ({ status: got.response.status, body: got.data ?? got.error });

export function connect(base: string): Clients {
  const client = createClient<paths>({ baseUrl: `${base}/v1` });
  const path = (c: Call) => ({ id: c.id });
  return {
    putConversation: async (c) => answer(await client.PUT('/conversations/{id}', { params: { path: path(c) }, body: c.body as Schemas['PutConversation'] })),
    getConversation: async (c) => answer(await client.GET('/conversations/{id}', { params: { path: path(c), query: c.query as Query<'/conversations/{id}'> } })),
    tombstoneConversation: async (c) => answer(await client.DELETE('/conversations/{id}', { params: { path: path(c) } })),
    listConversations: async (c) => answer(await client.GET('/conversations', { params: { query: c.query as Query<'/conversations'> } })),
    appendMessages: async (c) =>
      answer(
        await client.POST('/conversations/{id}/messages', {
          params: { path: path(c), header: c.headers as { 'Idempotency-Key'?: string } },
          body: c.body as Schemas['AppendMessage'] | Schemas['AppendMessages'],
        }),
      ),
    tailMessages: async (c) => answer(await client.GET('/conversations/{id}/tail', { params: { path: path(c), query: c.query as Query<'/conversations/{id}/tail'> } })),
    replayMessages: async (c) =>
      answer(
        await client.GET('/conversations/{id}/messages', {
          params: { path: path(c), query: c.query as Query<'/conversations/{id}/messages'>, header: c.headers as { 'X-Fastpaca-Min-Seq'?: number } },
        }),
      ),
  };
}

/** What the types must tell apart; only compiled. */
export async function typed(base: string): Promise<string[]> {
  const client = createClient<paths>({ baseUrl: base });
  const { data, error } = await client.GET('/conversations/{id}/tail', { params: { path: { id: 'a' }, query: { limit: 2, consistency: 'stale' } } });
  if (error) return [error.error, error.message];
  // @ts-expect-error there is no such consistency
  await client.GET('/conversations/{id}/tail', { params: { path: { id: 'a' }, query: { consistency: 'some' } } });
  // @ts-expect-error a message has parts
  await client.POST('/conversations/{id}/messages', { params: { path: { id: 'a' } }, body: { message: { role: 'user' } } });
  const seqs: number[] = data.messages.map((m) => m.seq);
  return data.messages.map((m) => m.role + m.parts.map((p) => p.type).join() + seqs.length);
}
