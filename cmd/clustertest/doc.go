// Package clustertest holds tests of a control plane and data nodes together in
// one process, over the real transport on loopback. It is under cmd because
// only there may both planes be imported; it holds no program.
package clustertest
