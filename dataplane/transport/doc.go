// Package transport carries the Raft traffic of all groups between data nodes.
//
// A Mux is one node's end of it. Mux.Group returns a View, the raft.Transport
// of one group; all views share a few connections per peer, one for each Lane.
// Servers are addressed by node id, so that a node may change its network
// address without a change of any group's configuration.
//
// The package authenticates nobody: Config.Dial and the caller of Mux.Serve
// hand over connections whose far end they have verified. DESIGN.md has the
// rest.
package transport
