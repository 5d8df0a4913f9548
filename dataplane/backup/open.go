package backup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Backup is one that has been read whole and found undamaged.
type Backup struct {
	Manifest
	dir string
}

// Open reads a backup and checks every byte of it.
func Open(ctx context.Context, dir string, opts Options) (*Backup, error) {
	opts = opts.withDefaults()
	m, err := openManifest(dir)
	if err != nil {
		return nil, fmt.Errorf("open backup: %w", err)
	}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(opts.FanOut)
	for i := range m.Groups {
		work.Go(func() error {
			got, err := readGroup(ctx, dir, rpc.Group(i))
			if err == nil && *got != m.Groups[i] {
				err = fmt.Errorf("%w: %s is not what %s says", ErrDamaged, got.Name, manifestFile)
			}
			if err == nil {
				opts.Progress(1, int64(got.Bytes))
			}
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, fmt.Errorf("open backup: %w", err)
	}
	return &Backup{Manifest: *m, dir: dir}, nil
}

func openManifest(dir string) (*Manifest, error) {
	manifest, err := readFile(dir, manifestFile)
	if err != nil {
		return nil, err
	}
	sums, err := readFile(dir, sumsFile)
	if err != nil {
		return nil, err
	}
	want, ok := sumIn(sums, manifestFile)
	if !ok || want != sumOf(manifest) {
		return nil, fmt.Errorf("%w: %s does not match %s", ErrDamaged, manifestFile, sumsFile)
	}
	m, err := decodeManifest(manifest)
	if err != nil {
		return nil, err
	}
	control, err := readFile(dir, controlFile)
	if err != nil {
		return nil, err
	}
	if uint64(len(control)) != m.Control.Bytes || sumOf(control) != m.Control.SHA256 {
		return nil, fmt.Errorf("%w: %s is not what %s says", ErrDamaged, controlFile, manifestFile)
	}
	return m, nil
}

// sumIn returns the sum of a file in the form of sha256sum.
func sumIn(sums []byte, name string) (string, bool) {
	for lines := bufio.NewScanner(bytes.NewReader(sums)); lines.Scan(); {
		if sum, ok := strings.CutSuffix(lines.Text(), "  "+name); ok {
			return sum, true
		}
	}
	return "", false
}

func readFile(dir, name string) ([]byte, error) {
	f, err := os.Open(local(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is missing in %s", ErrDamaged, name, dir)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it is only read
	data, err := io.ReadAll(io.LimitReader(f, maxManifestBytes+1))
	if err == nil && len(data) > maxManifestBytes {
		err = fmt.Errorf("%w: %s is too long", ErrDamaged, name)
	}
	return data, err
}
