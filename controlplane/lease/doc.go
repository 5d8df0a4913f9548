// Package lease decides who archives which group. It is pure: Book remembers
// who asked for leases and until when somebody may trust one, Next returns the
// grants that are due, and the caller commits them. See DESIGN.md for why there
// is never more than one holder that may trust its lease.
package lease
