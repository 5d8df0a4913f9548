package state

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// walk reads all data rows of one generation in the order of dataSpaces and,
// within a space, of keys. It has one iterator open at a time.
type walk struct {
	reader pebble.Reader
	keys   keyspace
	space  int // of dataSpaces, the one that it reads
	it     *pebble.Iterator
}

// next moves to the next row. The slices are valid until the next call. ok is
// false at the end.
func (w *walk) next() (space byte, rest, value []byte, ok bool, err error) {
	for w.space < len(dataSpaces) {
		if w.it == nil {
			lower, upper := w.keys.span(dataSpaces[w.space])
			if w.it, err = w.reader.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper}); err != nil {
				return 0, nil, nil, false, storageError(err)
			}
			ok = w.it.First()
		} else {
			ok = w.it.Next()
		}
		if ok {
			value, err = w.it.ValueAndErr()
			return dataSpaces[w.space], w.it.Key()[prefixLen:], value, err == nil, storageError(err)
		}
		if err = w.close(); err != nil {
			return 0, nil, nil, false, err
		}
		w.space++
	}
	return 0, nil, nil, false, nil
}

func (w *walk) close() error {
	if w.it == nil {
		return nil
	}
	err := errors.Join(storageError(w.it.Error()), w.it.Close())
	w.it = nil
	return err
}
