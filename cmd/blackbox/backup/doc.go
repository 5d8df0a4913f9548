// Package backup takes backups of whole clusters with `fastpaca cluster backup`,
// under appends and while processes die, and restores them into clusters of
// other sizes. What clients read afterwards is held, byte by byte, against what
// they read before.
package backup
