// Package group runs one Raft group on a data node: a hashicorp/raft instance
// over the node's shared storage, the proposer that packs waiting writes into
// Raft entries, the rules for reading, and the watchdog that restarts the
// instance in place. Nothing outside this package, raftlog and transport sees
// hashicorp/raft in the data plane. DESIGN.md has the reasons.
package group
