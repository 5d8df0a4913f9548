// Package archiver moves what a data node's groups have committed into the
// archive: it holds leases, finds what the archive lacks, writes it, and tells
// each group how far it is archived, so that the group trims. DESIGN.md has the
// details.
package archiver
