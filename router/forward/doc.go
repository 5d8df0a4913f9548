// Package forward carries a request from a router to the data node that can
// answer it. A Forwarder has the method set of a data node: it hashes the
// conversation to its group, looks the group's leader up in the cached
// placement table, and calls that node, wherever it runs.
//
// It hides what is safe to hide: a leader that moved and an election that takes
// a moment. It never hides an unknown outcome: an append that may have been
// proposed is proposed again only when message ids or an idempotency key make
// that harmless.
package forward
