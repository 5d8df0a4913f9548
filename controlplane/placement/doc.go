// Package placement decides which nodes hold the replicas of which group and
// which of them should lead. It is pure: the same nodes give the same plan, on
// every member and in every version that shares a golden test.
//
// Initial places groups that have no place yet. It works in shares: first how
// many replicas each zone takes, then each node, then which groups these are.
// Extend adds replicas to a group that has some, BalanceLeaders evens out who
// leads with few changes, and Factor says how many replicas a group should have.
// A planner that moves replicas can start from the same shares and look for the
// fewest moves that reach them.
package placement
