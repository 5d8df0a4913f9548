// Package console is the web console at /console: the cluster on one page, and a
// viewer of conversations. It is embedded whole and loads nothing from anywhere
// else. DESIGN.md says who may see and do what.
package console
