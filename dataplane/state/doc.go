// Package state is the deterministic state machine of one Raft group: the
// conversations that hash to the group, their messages, and what it remembers
// of message ids and idempotency keys to make retries safe.
//
// A Machine lives in a range of the data node's shared Pebble. Apply takes
// committed entries and writes their effects and the applied index in one
// unsynced batch; the synced Raft log in the same Pebble covers what a crash
// may lose. Apply reads no clock, no randomness and no configuration, so every
// replica of a group reaches the same bytes.
//
// The package does not know Raft: whoever runs it hands over the entries in
// order. See DESIGN.md for the stored layout and its reasons.
package state
