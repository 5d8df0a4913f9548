// Package latency tells operators how long appends take, all processes of a
// cluster together. Every process that measures appends adds up its last minutes
// in a Window and reports them, again and again, to each member of the control
// plane it knows. A member keeps what it is told in its memory only, on a Board,
// and forgets whoever falls silent: what is lost with a member has been said anew
// a few seconds after. Nothing waits for it.
package latency
