package main

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// memoryPoint is the resident size at a number of stored messages.
type memoryPoint struct {
	Messages    int     `json:"messages"`
	ResidentMiB float64 `json:"resident_mib"`
}

type memoryResult struct {
	Points []memoryPoint `json:"points"`
	// LoadPerSecond is what the batches reached, as a by-product.
	LoadPerSecond float64 `json:"load_messages_per_second"`
	DiskMiB       float64 `json:"disk_mib"`
}

// memory loads messages and watches what the server keeps in memory.
func (b *bench) memory(ctx context.Context) error {
	result, dir, err := b.load(ctx)
	if err != nil {
		return err
	}
	b.loaded = dir
	b.report.Memory = result
	points := result.Points
	last := points[len(points)-1]
	b.report.atMost("resident memory with all messages", last.ResidentMiB, 400, "MiB")
	half := points[len(points)/2-1]
	// What is kept must not follow what is stored; a tenth of the second half's
	// data would be the least that a leak could look like.
	grown := last.ResidentMiB - half.ResidentMiB
	stored := float64(last.Messages-half.Messages) * float64(b.TextBytes) / (1 << 20)
	b.report.atMost("memory grown over the second half, of the data stored", grown/stored*100, 10, "%")
	return nil
}

// load fills a new directory with the messages, in rounds over all
// conversations, and stops the server.
func (b *bench) load(ctx context.Context) (*memoryResult, string, error) {
	dir, err := os.MkdirTemp(b.dir, "loaded-")
	if err != nil {
		return nil, "", err
	}
	dir = filepath.Join(dir, "data")
	f, err := b.startFastpaca(ctx, dir)
	if err != nil {
		return nil, "", err
	}
	defer f.stop()
	result, err := b.loadRounds(ctx, f)
	if err != nil {
		return nil, "", err
	}
	if err := f.drain(ctx); err != nil {
		return nil, "", err
	}
	result.DiskMiB = mebibytes(diskUsage(dir))
	return result, dir, nil
}

func (b *bench) loadRounds(ctx context.Context, f *fastpaca) (*memoryResult, error) {
	conversations := min(loadedConversations, max(1, b.Messages/loadBatch))
	if err := createConversations(ctx, f, conversations); err != nil {
		return nil, err
	}
	const quarters = 4
	var (
		result  memoryResult
		bodies  = newTexts(b.TextBytes)
		started = time.Now()
		stored  = 0
	)
	for quarter := 1; quarter <= quarters; quarter++ {
		for stored < b.Messages*quarter/quarters {
			if err := loadRound(ctx, f, conversations, loadBatch, bodies); err != nil {
				return nil, err
			}
			stored += conversations * loadBatch
		}
		bytes, err := footprint(f)
		if err != nil {
			return nil, err
		}
		result.Points = append(result.Points, memoryPoint{stored, mebibytes(bytes)})
		b.progress("memory: %d messages, %.0f MiB resident", stored, mebibytes(bytes))
	}
	result.LoadPerSecond = float64(stored) / time.Since(started).Seconds()
	return &result, nil
}

// diskUsage sums the sizes of all files, as far as they can be read.
func diskUsage(dir string) int64 {
	var sum int64
	_ = filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
