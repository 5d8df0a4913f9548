/**
 * Chats of the AI SDK (npm `ai`) kept in Fastpaca: messages, and answers that
 * can be resumed. It depends on the shapes of the AI SDK only.
 *
 * @packageDocumentation
 */
export { createChatStore, toUIMessages } from './messages.js';
export type { ChatStore, LoadOptions, UIMessageLike } from './messages.js';
export { createResumableChat } from './resumable.js';
export type { ChunkSource, ResumableChat, ResumableChatOptions, Run } from './resumable.js';
export type { Chunk, RecorderOptions } from './recorder.js';
