// Package reconcile decides how replicas move: which moves to start, when a move
// may take its next step, which to abort and who should lead. It is pure. Next
// compares the replicated catalog with what the data nodes have reported and
// returns the command that is due; the caller commits it and asks again. See
// DESIGN.md for the rules that keep every quorum.
package reconcile
