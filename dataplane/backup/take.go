package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// Source says what a backup is of.
type Source struct {
	Cluster   Cluster
	ClusterID string
	Version   string // of the program
	// Control is what the control plane said of itself, as JSON; it is kept for
	// people to read.
	Control []byte
}

// Take copies all groups of a cluster, each at one applied index, to files in
// dir, which must be empty or not exist. The directory appears when everything
// in it is complete, checked and durable; until then it has another name beside
// its own, and after a failure nothing is left.
func Take(ctx context.Context, dir string, src Source, opts Options) (_ *Manifest, err error) {
	opts = opts.withDefaults()
	dir = filepath.Clean(dir)
	mode, err := reserve(dir)
	if err != nil {
		return nil, err
	}
	made, err := makeParents(dir)
	if err != nil {
		return nil, fmt.Errorf("take backup: %w", err)
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".partial-")
	if err != nil {
		return nil, fmt.Errorf("take backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	m := &Manifest{Format: Format, Version: src.Version, ClusterID: src.ClusterID, Began: time.Now().UTC(), Groups: make([]Group, rpc.Groups)}
	if err := os.Mkdir(local(partial, groupDir), 0o750); err != nil {
		return nil, fmt.Errorf("take backup: %w", err)
	}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(opts.FanOut)
	for i := range m.Groups {
		work.Go(func() error {
			g, err := takeGroup(ctx, partial, src.Cluster, rpc.Group(i), &opts)
			if err == nil {
				m.Groups[i] = *g
				opts.Progress(1, 0)
			}
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, fmt.Errorf("take backup: %w", err)
	}
	if err := finish(partial, m, src.Control); err != nil {
		return nil, fmt.Errorf("take backup: %w", err)
	}
	if err := errors.Join(os.Chmod(partial, mode), os.Rename(partial, dir)); err != nil {
		return nil, fmt.Errorf("take backup: %w", err)
	}
	for _, parent := range made {
		if err := syncDir(parent); err != nil {
			return nil, fmt.Errorf("take backup: it is complete, but may not outlive a power failure: %w", err)
		}
	}
	return m, nil
}

// makeParents makes the directories above dir, and returns those in which a name
// is new, or will be once dir is there.
func makeParents(dir string) (changed []string, err error) {
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		changed = append(changed, parent)
		_, err := os.Stat(parent)
		if err == nil || parent == filepath.Dir(parent) {
			break
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return changed, os.MkdirAll(filepath.Dir(dir), 0o750)
}

// reserve makes sure that dir can be renamed to, and returns the mode that it
// should have. An empty directory makes room now: if it cannot, because it is a
// mount point, say, that should not show after all has been copied.
func reserve(dir string) (os.FileMode, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return 0o750, nil
	case err != nil:
		return 0, fmt.Errorf("take backup: %w", err)
	case len(entries) > 0:
		return 0, fmt.Errorf("%s %w", dir, ErrNotEmpty)
	}
	info, err := os.Stat(dir)
	if err == nil {
		err = os.Remove(dir)
	}
	if err != nil {
		return 0, fmt.Errorf("take backup: name a directory that does not exist: %w", err)
	}
	return info.Mode().Perm(), nil
}

// takeGroup copies a group and reads what it wrote.
func takeGroup(ctx context.Context, dir string, c Cluster, group rpc.Group, opts *Options) (*Group, error) {
	path := local(dir, groupFile(group))
	err := opts.attend(ctx, c, group, func(n Node) error {
		copied := int64(0)
		err := writeFile(path, func(w io.Writer) error {
			return n.Export(ctx, group, writerFunc(func(p []byte) (int, error) {
				written, err := w.Write(p)
				copied += int64(written)
				opts.Progress(0, int64(written))
				return written, err
			}))
		})
		if err != nil {
			opts.Progress(0, -copied) // it will be copied again
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return readGroup(ctx, dir, group)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// readGroup reads a group's file whole, and checks it.
func readGroup(ctx context.Context, dir string, group rpc.Group) (*Group, error) {
	name := groupFile(group)
	f, err := os.Open(local(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is missing", ErrDamaged, name)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it is only read
	counted := &countingReader{ctx: ctx, r: f}
	sum := sha256.New()
	s, err := state.NewStreamReader(io.TeeReader(counted, sum), group)
	if err != nil {
		return nil, damaged(name, err)
	}
	about := s.State()
	if about.Restoring {
		return nil, fmt.Errorf("group %d: a restore of it has not ended", group)
	}
	g := &Group{
		Group: group, Applied: about.Applied, Conversations: about.Conversations, Messages: about.Messages, Rows: about.Rows,
	}
	for {
		row, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, damaged(name, err)
		}
		g.Archived += row.Trimmed()
	}
	hash := s.Hash()
	g.StateHash = hex.EncodeToString(hash[:])
	g.File = File{Name: name, Bytes: counted.n, SHA256: hex.EncodeToString(sum.Sum(nil))}
	return g, nil
}

func damaged(name string, err error) error {
	if errors.Is(err, state.ErrBadSnapshot) {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// countingReader reads until its context ends.
type countingReader struct {
	ctx context.Context
	r   io.Reader
	n   uint64
}

func (c *countingReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += uint64(n)
	return n, err
}

// finish writes the files that say what the others are, and makes all of them
// durable.
func finish(dir string, m *Manifest, control []byte) error {
	if err := writeBytes(local(dir, controlFile), control); err != nil {
		return err
	}
	m.Control = File{Name: controlFile, Bytes: uint64(len(control)), SHA256: sumOf(control)}
	for i := range m.Groups {
		g := &m.Groups[i]
		m.Totals.Conversations += g.Conversations
		m.Totals.Messages += g.Messages
		m.Totals.Archived += g.Archived
		m.Totals.Bytes += g.Bytes
	}
	m.Ended = time.Now().UTC()
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := writeBytes(local(dir, manifestFile), manifest); err != nil {
		return err
	}
	var sums strings.Builder
	for i := range m.Groups {
		fmt.Fprintf(&sums, "%s  %s\n", m.Groups[i].SHA256, m.Groups[i].Name)
	}
	fmt.Fprintf(&sums, "%s  %s\n%s  %s\n", m.Control.SHA256, controlFile, sumOf(manifest), manifestFile)
	if err := writeBytes(local(dir, sumsFile), []byte(sums.String())); err != nil {
		return err
	}
	return errors.Join(syncDir(local(dir, groupDir)), syncDir(dir))
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func writeBytes(path string, data []byte) error {
	return writeFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// writeFile writes a file, anew if it is there, and makes it durable.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
