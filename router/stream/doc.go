// Package stream follows conversations on behalf of the clients of a router.
//
// A Hub holds one topic per followed conversation, with at most one upstream
// subscription however many clients follow it. A client has a Session with one
// Cursor per conversation. Nothing is queued for a client: a cursor is a
// position in a dense log, and is served from the topic's ring of newest
// messages or, when it is behind that, from pages of the log. DESIGN.md says
// why that loses nothing.
//
// The package knows no transport; router/socket has those.
package stream
