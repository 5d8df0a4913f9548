// Package placement decides which nodes hold the replicas of which group and
// which of them should lead. It is pure: the same nodes give the same plan, on
// every member and in every version that shares a golden test.
//
// Initial places groups that have no place yet. It works in shares: first how
// many replicas each zone takes, then each node, then which groups these are.
// Rebalance starts from the same shares and looks for the fewest changes of a
// placement that reach them, Evacuate takes replicas away from nodes and changes
// nothing else. Extend adds replicas to a group that has some, BalanceLeaders evens
// out who leads with few changes, and Factor says how many replicas a group should
// have. See DESIGN.md.
package placement
