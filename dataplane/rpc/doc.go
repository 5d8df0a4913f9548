// Package rpc is the border of the data plane: the vocabulary, the errors and
// the Node interface through which everything outside it reads and writes
// conversations. A router imports this package and nothing else of the data
// plane, so the call it makes is the same whether the data node lives in the
// same process or behind a network.
//
// The package also fixes, for ever, how a conversation finds its group: see
// Key.Group.
package rpc
