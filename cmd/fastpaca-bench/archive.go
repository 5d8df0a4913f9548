package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// archiveResult holds what archiving costs and what it reaches.
type archiveResult struct {
	Off, On []appendRun `json:"-"`
	// OffPerSecond and OnPerSecond are medians of appends without and with the
	// archive; CaughtUpSeconds is how long after the load the lag was below
	// archiveLag again, at worst.
	OffPerSecond    float64 `json:"appends_per_second_off"`
	OnPerSecond     float64 `json:"appends_per_second_on"`
	CaughtUpSeconds float64 `json:"caught_up_s"`
}

const (
	// archiveLag is the lag that counts as none under load.
	archiveLag = 1000
	// archiveTail is how many messages of a conversation stay hot.
	archiveTail = 100
	// archivePatience bounds each wait for the archiver.
	archivePatience = 10 * time.Minute
)

// archive measures both sides in turn: a server with and without an archive
// under the same load.
func (b *bench) archive(ctx context.Context) error {
	result := &archiveResult{}
	for n := range b.Runs {
		off, err := b.appendOnce(ctx, func() (side, error) { return b.freshFastpaca(ctx) })
		if err != nil {
			return err
		}
		on, caughtUp, err := b.appendArchived(ctx)
		if err != nil {
			return err
		}
		result.Off, result.On = append(result.Off, off), append(result.On, on)
		result.CaughtUpSeconds = max(result.CaughtUpSeconds, caughtUp.Seconds())
		b.progress("archive %d/%d: %.0f/s without, %.0f/s with it, caught up after %.1f s", n+1, b.Runs, off.PerSecond, on.PerSecond, caughtUp.Seconds())
	}
	perSecond := func(r appendRun) float64 { return r.PerSecond }
	result.OffPerSecond, result.OnPerSecond = medianOf(result.Off, perSecond), medianOf(result.On, perSecond)
	b.report.Archive = result
	b.report.atLeast("appends/s with the archive over without", result.OnPerSecond/result.OffPerSecond, 0.7, "×")
	b.report.atMost("archive lag below 1,000 after the load", result.CaughtUpSeconds, 30, "s")
	return nil
}

// archived starts a server with an archive of its own.
func (b *bench) archived(ctx context.Context, dir string, p *postgres) (*fastpaca, error) {
	return b.startFastpaca(ctx, dir, "--archive-url", p.database(historyDatabase), "--tail-keep", strconv.Itoa(archiveTail))
}

const historyDatabase = "history"

func (p *postgres) database(name string) string {
	return strings.Replace(p.connURL, "dbname=postgres", "dbname="+name, 1)
}

// makeDatabase makes an empty database beside the one that append uses.
func (p *postgres) makeDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, p.connURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, "create database "+name)
	return err
}

// appendArchived is appendOnce with an archive, and then the wait for it.
func (b *bench) appendArchived(ctx context.Context) (run appendRun, caughtUp time.Duration, err error) {
	p, err := b.freshPostgres(ctx)
	if err != nil {
		return run, 0, err
	}
	defer p.stop()
	if err := p.makeDatabase(ctx, historyDatabase); err != nil {
		return run, 0, err
	}
	dir, err := os.MkdirTemp(b.dir, "archived-")
	if err != nil {
		return run, 0, err
	}
	f, err := b.archived(ctx, filepath.Join(dir, "data"), p)
	if err != nil {
		return run, 0, err
	}
	defer f.stop()
	ids := make([]string, b.Conversations)
	for i := range ids {
		ids[i] = conversation(i)
	}
	if err := f.prepare(ctx, ids); err != nil {
		return run, 0, err
	}
	if run, err = b.measureAppends(ctx, f, ids); err != nil {
		return run, 0, err
	}
	ended := time.Now()
	_, err = f.awaitArchive(ctx, func(m archiveMetrics) bool { return m.leases > 0 && m.pending < archiveLag })
	return run, time.Since(ended), err
}

// archiveMetrics are what a server tells of its archiver.
type archiveMetrics struct{ leases, pending, conversations, messages float64 }

// awaitArchive polls the server's metrics until they are as wanted.
func (f *fastpaca) awaitArchive(ctx context.Context, done func(archiveMetrics) bool) (archiveMetrics, error) {
	ctx, cancel := context.WithTimeout(ctx, archivePatience)
	defer cancel()
	for {
		m, err := f.archiveMetrics(ctx)
		if err != nil {
			return m, err
		}
		if done(m) {
			return m, nil
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return m, fmt.Errorf("the archive did not get that far: %+v: %w", m, ctx.Err())
		}
	}
}

func (f *fastpaca) archiveMetrics(ctx context.Context) (m archiveMetrics, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.server.URL()+"/metrics", nil)
	if err != nil {
		return m, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return m, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		number, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "fastpaca_archive_leases":
			m.leases = number
		case "fastpaca_archive_pending_messages":
			m.pending = number
		case "fastpaca_archive_pending_conversations":
			m.conversations = number
		case "fastpaca_archive_messages_total":
			m.messages = number
		}
	}
	return m, lines.Err()
}
