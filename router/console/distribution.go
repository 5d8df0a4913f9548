package console

import (
	"math"

	dto "github.com/prometheus/client_model/go"
)

// distribution is one cumulative histogram.
type distribution struct {
	count  uint64
	sum    float64
	bounds []float64 // ascending; the bucket without bound is not among them
	counts []uint64  // cumulative, one for each bound
}

func distributionOf(h *dto.Histogram) distribution {
	d := distribution{count: h.GetSampleCount(), sum: h.GetSampleSum()}
	for _, b := range h.GetBucket() {
		if !math.IsInf(b.GetUpperBound(), 1) {
			d.bounds = append(d.bounds, b.GetUpperBound())
			d.counts = append(d.counts, b.GetCumulativeCount())
		}
	}
	return d
}

// since is what was counted after an earlier moment. Of a histogram with other
// bounds, or one that began anew, it is everything.
func (d distribution) since(before distribution) distribution {
	if before.count > d.count || len(before.counts) != len(d.counts) {
		return d
	}
	out := distribution{count: d.count - before.count, sum: d.sum - before.sum, bounds: d.bounds, counts: make([]uint64, len(d.counts))}
	for i, n := range d.counts {
		out.counts[i] = n - min(n, before.counts[i])
	}
	return out
}

// mean is that of what was counted, 0 of nothing.
func (d distribution) mean() float64 {
	if d.count == 0 {
		return 0
	}
	return max(0, d.sum/float64(d.count))
}

// quantile estimates a quantile, 0 < q < 1, as if values were spread evenly within
// a bucket. Of values above the highest bound it is that bound.
func (d distribution) quantile(q float64) float64 {
	if d.count == 0 || len(d.bounds) == 0 {
		return 0
	}
	rank := q * float64(d.count)
	lower, below := 0.0, uint64(0)
	for i, n := range d.counts {
		if float64(n) >= rank && n > below {
			return lower + (d.bounds[i]-lower)*(rank-float64(below))/float64(n-below)
		}
		lower, below = d.bounds[i], n
	}
	return d.bounds[len(d.bounds)-1]
}
