// Package archive keeps the full history of conversations in Postgres: it makes
// and checks the schema, writes runs of messages and proves what is there, and
// reads them back. It is the only package that speaks to Postgres, and it knows
// nothing of groups, leases or leadership; package archiver drives it.
//
// SCHEMA.md describes the tables, which users may query. DESIGN.md has the
// reasons.
package archive
