// Package faults does to real server processes what happens to them in the
// field: it kills them under load, takes their disk away, fills it, cuts the
// power, flips bits in their files. The ledger of every append that was asked
// for, and of what was answered, decides afterwards whether a promise was
// broken: what was acknowledged is there, once, at its sequence, unchanged;
// what was refused is not.
//
// The tests that need a disk of their own mount one, so they run as root, on
// Linux; elsewhere they say that they did not run.
package faults
