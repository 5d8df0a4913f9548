/**
 * The client of Fastpaca, the message backend for AI agents.
 *
 * @packageDocumentation
 */
export { createClient, Fastpaca } from './client.js';
export type { ConversationOptions } from './client.js';
export { Conversation } from './conversation.js';
export { FastpacaError } from './errors.js';
export type { ClientErrorCode, FastpacaErrorFields } from './errors.js';
export type { Events } from './events.js';
export type { ClientOptions, JSONCodec, WebSocketLike } from './transport.js';
export type * from './types.js';
