/**
 * Conversations as history of a Cria prompt, and a store for its summaries. It
 * depends on the shapes of Cria only.
 *
 * @packageDocumentation
 */
export { criaHistory } from './history.js';
export type { CriaHistoryOptions, CriaMessageNode, CriaNode, CriaPart, CriaRole, CriaScope, ToolFormat, ToolIO } from './history.js';
export { createSummaryStore } from './summaries.js';
export type { MemoryEntry, SummaryStore } from './summaries.js';
