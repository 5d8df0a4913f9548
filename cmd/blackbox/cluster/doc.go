// Package cluster runs whole clusters of real processes on loopback and breaks
// them: it kills, pauses, wipes and restarts any of them, and cuts, holds or
// slows down the network between any two. The suite in this directory does so
// under concurrent appends and reads, and holds every answer that a client got
// against what is there afterwards: see history.
//
// Processes reach each other through proxies of this one when a cluster is
// asked for them. A proxy finds out whose connection it carries by looking up
// the process that owns the other end, which only Linux tells.
package cluster
