// Package archive proves the archive from outside, with the built program and a
// real PostgreSQL: servers and data nodes are killed between what they write
// and what they acknowledge, PostgreSQL is killed, paused and restarted under
// load, an archiver wakes up after its lease has moved. Whatever happened,
// every conversation must read back as it was appended, across the boundary
// between what is hot and what is archived, and `fastpaca archive verify` must
// find nothing; and when a row was changed by hand, it must find that row.
package archive
