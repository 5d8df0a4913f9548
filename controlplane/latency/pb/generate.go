// Package pb is the protocol of append latency as generated from latency.proto.
package pb

//go:generate ../../../.ci/protobuf
