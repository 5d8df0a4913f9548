// Package pb is the protocol of the data plane as generated from
// dataplane.proto.
package pb

//go:generate ../../../../.ci/protobuf
