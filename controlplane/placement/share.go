package placement

import "math/bits"

// claim is one party among which units are shared out.
type claim struct {
	weight uint64
	has    int // what it has already; it counts towards its fair part
	limit  int // what it can have at most
}

// apportion shares out units so that (has + got) / weight is as even as the
// limits allow, each unit to the claim that is then the least loaded; the first
// of equals gets it. What no limit admits is not shared out. It returns what
// each claim got.
func apportion(units int, claims []claim) []int {
	got := make([]int, len(claims))
	for range units {
		best := -1
		for i, c := range claims {
			if c.has+got[i] >= c.limit {
				continue
			}
			if best < 0 || lighter(c.has+got[i]+1, c.weight, claims[best].has+got[best]+1, claims[best].weight) {
				best = i
			}
		}
		if best < 0 {
			return got
		}
		got[best]++
	}
	return got
}

// lighter reports whether a/aWeight < b/bWeight, exactly.
func lighter(a int, aWeight uint64, b int, bWeight uint64) bool {
	aHigh, aLow := bits.Mul64(uint64(a), bWeight)
	bHigh, bLow := bits.Mul64(uint64(b), aWeight)
	return aHigh < bHigh || aHigh == bHigh && aLow < bLow
}
