package consensus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

const (
	identityFile   = "member.json"
	identityFormat = 1
)

// identity says whose a data directory is. It is written once, after the store
// was bootstrapped and before Raft first runs, so a directory that has it must
// also hold Raft's state.
type identity struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
}

// readIdentity returns nil without an error when the directory has none yet.
func readIdentity(dir string) (*identity, error) {
	path := filepath.Join(dir, identityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	body, sum, ok := bytes.Cut(data, []byte("\n"))
	if !ok || string(bytes.TrimSuffix(sum, []byte("\n"))) != identityChecksum(body) {
		return nil, fmt.Errorf("%w: %s fails its checksum", ErrCorrupt, path)
	}
	var id identity
	if err := json.Unmarshal(body, &id); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	return &id, nil
}

// check returns ErrWrongDirectory unless the identity is that of the member.
func (i *identity) check(dir, id string) error {
	if i.Format != identityFormat {
		return fmt.Errorf("%w: %s has format %d, this program knows %d", ErrWrongDirectory, dir, i.Format, identityFormat)
	}
	if i.ID != id {
		return fmt.Errorf("%w: %s belongs to member %q, not %q", ErrWrongDirectory, dir, i.ID, id)
	}
	return nil
}

// writeIdentity is durable when it returns.
func writeIdentity(dir string, id string) error {
	body, err := json.Marshal(identity{Format: identityFormat, ID: id})
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	content := append(append(body, '\n'), identityChecksum(body)+"\n"...)
	if err := writeFileAtomic(dir, identityFile, content); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}

func identityChecksum(body []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(body, castagnoli)), 16)
}

// tmpSuffix marks files that were not finished; they are removed at open.
const tmpSuffix = ".tmp"

// writeFileAtomic makes a file with the content appear in dir under name; it is
// durable when the call returns, and never seen half-written.
func writeFileAtomic(dir, name string, content []byte) error {
	tmp := filepath.Join(dir, name+tmpSuffix)
	file, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
