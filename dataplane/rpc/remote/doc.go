// Package remote carries dataplane/rpc over a network: Client is an rpc.Node,
// an rpc.Feed and an rpc.Inspector whose node is in another process, and Server
// is the other end of it. Both keep the promises of these, so a caller need not
// know which it has.
//
// The package brings neither connections nor trust: it is given a
// grpc.ClientConnInterface and registers on a gRPC server, and who may speak
// there is decided beneath.
//
// Writes share a few long-lived streams, many in flight and many to a message;
// subscriptions share one more; reads are one call each. DESIGN.md has the reasons and the figures.
package remote
