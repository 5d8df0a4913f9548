// Package moves holds the suite of moves of replicas: operators grow, drain and
// repair clusters of real processes under appends, with the command line that
// operators have, while processes are killed, members of the control plane at
// every step of a move among them. Afterwards everything that was acknowledged
// is there once, every group has its replicas, and these are equal.
//
// For the fail points it builds the program with the tag failpoints.
package moves
