// Package backup copies all groups of a cluster to files, and fills an empty
// cluster from them. DESIGN.md has the form of the files and what a restore
// promises.
package backup
