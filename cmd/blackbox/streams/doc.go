// Package streams follows conversations as clients do, on every transport, and
// holds what they are told against what a log may say. The suite in this
// directory lets many such clients come, go and change places while a cluster
// of real processes is broken, and gives a server everything that a client
// should not send.
//
// The clients are for suites: they do nothing by themselves, so that what comes
// on a connection is what a test sees. Of them, those on WebSockets use the
// library that the server uses too; package browser has clients that do not.
package streams
