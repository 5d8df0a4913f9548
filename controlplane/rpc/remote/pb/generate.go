// Package pb is the protocol of the control plane as generated from
// controlplane.proto.
package pb

//go:generate ../../../../.ci/protobuf
