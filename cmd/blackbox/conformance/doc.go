// Package conformance is the API contract as a black-box test. It needs
// nothing but the base URL of a server, in FASTPACA_URL; without it, it starts
// one of its own from the built program. Cases that carry a number, such as
// C08, are the numbered cases of the contract; the other tests hold what the
// contract says in prose. Every conversation gets a random id, so the suite
// can run against a server that is in use, and cleans up after nothing.
package conformance
