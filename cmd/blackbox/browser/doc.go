// Package browser runs JavaScript against a cluster of real processes: the npm
// package phoenix as applications use it, in three versions; what browsers have
// built in, WebSocket and EventSource; and the TypeScript SDK as it is packed.
// All of it runs in Node and in a page of a headless Chromium, while routers are
// restarted and data nodes killed.
//
// The suites are in the directory suite and know nothing of where they run. A
// suite asks the harness in this package for a fault by HTTP, and gets its
// answer when the cluster is whole again.
//
// It also holds what else takes npm: clients that other generators make of the
// contract, put through the same cases (testdata/cases.json) beside one in Go; the
// checks of the SDK's package; and the examples.
//
// What a machine lacks (node, npm, chromium) is said on standard error, and the
// tests that need it do not run.
package browser
