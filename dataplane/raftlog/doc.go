// Package raftlog keeps the Raft log and the stable values of one group in the
// data node's shared storage, as hashicorp/raft's LogStore and StableStore.
// DESIGN.md has the reasons.
package raftlog
