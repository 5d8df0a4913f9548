/**
 * The generated client of the HTTP contract, one function per operation, for
 * what the hand-written surface does not offer. It retries nothing and throws
 * nothing; an answer has `data` or `error`.
 *
 * @packageDocumentation
 */
export * from './generated/index.js';
export { client } from './generated/client.gen.js';
export { createClient, createConfig } from './generated/client/index.js';
