/** A call of cases.json. */
export interface Call {
  op: string;
  id: string;
  query?: unknown;
  headers?: unknown;
  body?: unknown;
}

/** A generated client, by the names of operations. */
export type Clients = Record<string, (call: Call) => Promise<{ status: number | undefined; body: unknown }>>;
