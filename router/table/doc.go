// Package table keeps a router's copy of the placement table: which node leads
// a group and which nodes hold its replicas.
//
// The copy is followed from the control plane by one goroutine and read without
// locks. It is a cache in the strict sense: while the control plane is down the
// last table keeps being served, and a table that has gone stale about a leader
// is corrected from the answers of data nodes until a newer one arrives.
package table
