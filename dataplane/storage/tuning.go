package storage

import (
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable/block"
)

// formatVersion is Pebble's own on-disk format, fixed so that an update of the
// library alone does not change what older programs can open. It has
// checksummed table footers and log chunks that carry a synced offset.
const formatVersion = pebble.FormatValueSeparation

// The tuning of Pebble. DESIGN.md gives the reasons and measurements.
const (
	memTablesMax       = 3
	blockBytes         = 16 << 10
	indexBlockBytes    = 64 << 10
	bloomBitsPerKey    = 10
	baseLevelBytes     = 128 << 20
	l0FileBytes        = 4 << 20
	l0CompactAt        = 8
	l0StopAt           = 40
	compactionsMax     = 2
	manifestBytesMax   = 4 << 20
	openFilesMax       = 1000
	walBytesPerSync    = 512 << 10
	tableBytesPerSync  = 1 << 20
	rangeDelFlushDelay = 30 * time.Second
)

func (e *Engine) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                          e.guard,
		Logger:                      pebbleLogger{e.halter},
		EventListener:               e.events(),
		FormatMajorVersion:          formatVersion,
		CacheSize:                   e.opts.CacheBytes,
		MemTableSize:                uint64(e.opts.MemTableBytes),
		MemTableStopWritesThreshold: memTablesMax,
		LBaseMaxBytes:               baseLevelBytes,
		L0CompactionThreshold:       l0CompactAt,
		L0StopWritesThreshold:       l0StopAt,
		MaxManifestFileSize:         manifestBytesMax,
		MaxOpenFiles:                openFilesMax,
		WALBytesPerSync:             walBytesPerSync,
		BytesPerSync:                tableBytesPerSync,
		FlushDelayDeleteRange:       rangeDelFlushDelay,
		CompactionConcurrencyRange:  func() (int, int) { return 1, compactionsMax },
	}
	o.TargetFileSizes[0] = l0FileBytes
	for i := range o.Levels {
		level := &o.Levels[i]
		level.BlockSize = blockBytes
		level.IndexBlockSize = indexBlockBytes
		level.FilterPolicy = bloom.FilterPolicy(bloomBitsPerKey)
		level.Compression = func() *block.CompressionProfile { return block.FastestCompression }
	}
	o.Experimental.SpanPolicyFunc = spanPolicy
	return o
}

// spanPolicy cuts tables at the borders of the Raft log, so that a table of
// truncated log can be dropped whole and never drags messages into a rewrite.
func spanPolicy(start []byte) (pebble.SpanPolicy, []byte, error) {
	space := byte(0)
	if len(start) > 0 {
		space = start[0]
	}
	switch {
	case space < SpaceLog:
		return pebble.SpanPolicy{}, []byte{SpaceLog}, nil
	case space == SpaceLog:
		return pebble.SpanPolicy{}, []byte{SpaceLog + 1}, nil
	}
	return pebble.SpanPolicy{}, nil, nil
}
