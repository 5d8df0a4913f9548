// Package feed tells subscribers what is committed to conversations, as it is
// committed. It remembers nothing: who missed something reads the log. DESIGN.md
// has the details.
package feed
