// Package admin is the HTTP API with which operators look at a cluster and
// change it. It is served by the members of the control plane on their internal
// network, and described by openapi/admin.yaml. See DESIGN.md for who may use it
// and what the answers mean.
package admin
