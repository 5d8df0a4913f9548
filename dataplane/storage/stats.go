package storage

import (
	dto "github.com/prometheus/client_model/go"
)

// Stats are the numbers of an Engine that an operator looks at. Counters count
// since the Engine was opened.
type Stats struct {
	// WALBytes are in the log's files, WALWritten were ever written to them.
	WALBytes, WALWritten uint64

	MemTableBytes uint64
	Flushes       uint64

	Compactions        uint64
	CompactionsRunning int64
	CompactionsFailed  uint64
	// CompactionDebt is how much is to be compacted before the tree is in shape.
	CompactionDebt uint64
	// ReadAmplification is how many places a read may have to look at.
	ReadAmplification int

	CacheBytes             int64
	CacheHits, CacheMisses int64

	// UsedBytes are all files of the Engine, DiskTotal and DiskFree the file
	// system's, 0 when it does not say.
	UsedBytes, DiskTotal, DiskFree uint64
}

// Distribution counts values by upper bounds. Counts[i] are those up to
// Bounds[i] and above the bound before; the last are above all bounds.
type Distribution struct {
	Bounds []float64
	Counts []uint64
	Sum    float64
}

// Stats returns the numbers of this moment. It costs some microseconds and must
// not be called after Close.
func (e *Engine) Stats() Stats {
	m := e.db.Metrics()
	s := Stats{
		WALBytes: m.WAL.PhysicalSize, WALWritten: m.WAL.BytesWritten,
		MemTableBytes: m.MemTable.Size, Flushes: uint64(m.Flush.Count),
		Compactions: uint64(m.Compact.Count), CompactionsRunning: m.Compact.NumInProgress,
		CompactionsFailed: uint64(m.Compact.FailedCount), CompactionDebt: m.Compact.EstimatedDebt,
		ReadAmplification: m.ReadAmp(),
		CacheBytes:        m.BlockCache.Size, CacheHits: m.BlockCache.Hits, CacheMisses: m.BlockCache.Misses,
		UsedBytes: m.DiskSpaceUsage(),
	}
	if usage, err := e.DiskUsage(); err == nil {
		s.DiskTotal, s.DiskFree = usage.TotalBytes, usage.AvailBytes
	}
	return s
}

// WALSync is how long syncs of the write-ahead log took, in seconds, since the
// Engine was opened. It must not be called after Close.
func (e *Engine) WALSync() Distribution {
	h := e.db.Metrics().LogWriter.FsyncLatency
	var written dto.Metric
	if h == nil || h.Write(&written) != nil {
		return Distribution{}
	}
	return distribution(written.GetHistogram())
}

// distribution turns cumulative nanoseconds into Stats' form.
func distribution(h *dto.Histogram) Distribution {
	const second = 1e9
	d := Distribution{Sum: h.GetSampleSum() / second}
	below := uint64(0)
	for _, b := range h.GetBucket() {
		d.Bounds = append(d.Bounds, b.GetUpperBound()/second)
		d.Counts = append(d.Counts, b.GetCumulativeCount()-below)
		below = b.GetCumulativeCount()
	}
	d.Counts = append(d.Counts, h.GetSampleCount()-below)
	return d
}
