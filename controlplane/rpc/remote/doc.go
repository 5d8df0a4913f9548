// Package remote carries controlplane/rpc over a network: Client is an
// rpc.ControlPlane whose members are other processes, and Server puts a member,
// its Backend, behind gRPC. DESIGN.md has the reasons.
//
// The package brings neither connections nor trust: the client is given a way to
// dial, the server registers on a gRPC server, and who may speak there is
// decided beneath.
package remote
