// Package catalog is the replicated state of the control plane: which cluster
// this is, which data nodes belong to it and where each group lives. It is
// deterministic: the same commands in the same order give byte-identical state
// on every member, for Apply sees no clock, no randomness and no configuration.
//
// A State is immutable. Applying a command makes a new one that shares what did
// not change, so readers hold on to a State for as long as they like and never
// lock. See DESIGN.md for the commands and their encoding.
package catalog
