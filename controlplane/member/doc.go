// Package member is a running member of the control plane: its replicated
// catalog and, while it leads, what the cluster is told and asked. It serves
// rpc.ControlPlane.
//
// What must survive is in the catalog. Everything else, who is alive and who
// leads which group, is kept in memory by the leader, for one term of
// leadership, and comes back with the next reports of the data nodes. See
// DESIGN.md.
package member
