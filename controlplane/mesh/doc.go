// Package mesh is the internal network between the processes of a cluster.
//
// Every process has at most one internal listener. Each connection to it starts
// with an optional mutual TLS handshake and then the mesh handshake, in which
// both ends prove that they know the cluster's token, say who they are, and the
// dialer names the Kind of traffic that follows. The Listener hands finished
// connections to one virtual net.Listener per Kind, so that gRPC, the Raft
// transport of the data nodes and the Raft of the control plane share one port
// and one set of credentials.
//
// After the handshake a connection is the plain TCP or TLS connection: the mesh
// adds no framing and copies no byte. PeerOf tells who is at the other end.
//
// DESIGN.md has the threat model and the transcript of the handshake.
package mesh
