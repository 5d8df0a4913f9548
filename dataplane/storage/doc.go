// Package storage opens the one Pebble of a data node and keeps it honest: who
// owns the directory, whether its disk can still take writes, and whether what
// is on it is what was written. Every group's Raft log, stable state and state
// machine live in this Pebble, apart by space and group (see AppendPrefix), so
// that one write-ahead log orders and syncs all of them together.
//
// DESIGN.md tells what the package adds to Pebble and why.
package storage
