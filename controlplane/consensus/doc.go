// Package consensus runs one member of the control plane's own Raft group. It
// is the only package of the control plane that knows hashicorp/raft: above it
// there are commands, a state machine and who leads; below it there are one
// bbolt file, snapshot files and a stream to the other members.
//
// A member is built for one, three or five of them. With one it elects itself
// within milliseconds and needs no network.
//
// See DESIGN.md for what is stored how, who owns which goroutine and which of
// Raft's defaults are changed.
package consensus
