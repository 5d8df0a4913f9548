package consensus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
)

// The structural check reads a bbolt file (format version 2) byte by byte,
// without bbolt: bbolt trusts its pages, so a flipped bit in one can make it
// panic, loop, or silently overlook keys. bbolt packs a page exactly, which
// makes every byte that it would act on predictable: what this check accepts
// differs from what was written at most inside keys and values, and those carry
// checksums.

const (
	// maxCheckBytes bounds the file that is checked as a whole. The control
	// log stays far below it.
	maxCheckBytes = 64 << 20
	// maxTreeDepth bounds the recursion into pages.
	maxTreeDepth = 16

	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeaderBytes  = 16
	leafElementBytes = 16
	branchElement    = 16
	bucketBytes      = 16
	metaBytes        = 64

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10

	leafFlagBucket = 0x01
)

// boltFile is a bbolt file being checked.
type boltFile struct {
	data     []byte
	pageSize uint64
	meta     boltMeta
	owner    map[uint64]string // page number → what uses it
}

type boltMeta struct {
	pageSize uint32
	root     uint64
	freelist uint64
	pages    uint64 // high-water mark
	txid     uint64
}

// checkBoltFile returns an error wrapping ErrCorrupt unless the file at path is
// a whole bbolt database that holds exactly the given top-level buckets, or none
// yet where that is allowed. A file larger than maxCheckBytes has only its meta
// pages checked. The caller holds bbolt's lock on the file, so that no process
// writes to it.
func checkBoltFile(path string, buckets [][]byte, allowNone bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	var data []byte
	whole := info.Size() <= maxCheckBytes
	if whole {
		data, err = os.ReadFile(path)
	} else {
		data, err = readHead(path)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	if err := checkBolt(data, whole, buckets, allowNone); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	return nil
}

// readHead reads what holds both meta pages for any usual page size.
func readHead(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	head := make([]byte, 128<<10)
	n, err := file.ReadAt(head, 0)
	if n < len(head) && err != nil {
		return nil, err
	}
	return head, nil
}

func checkBolt(data []byte, whole bool, buckets [][]byte, allowNone bool) error {
	f := &boltFile{data: data, owner: make(map[uint64]string)}
	if err := f.readMetas(); err != nil {
		return err
	}
	if !whole {
		return nil
	}
	if f.meta.pages < 4 || f.meta.pages > uint64(len(data))/f.pageSize {
		return fmt.Errorf("%d pages do not fit the file", f.meta.pages)
	}
	f.owner[0], f.owner[1] = "meta", "meta"
	var names [][]byte
	err := f.walk(f.meta.root, "root", nil, nil, 0, func(key []byte, value []byte, bucket bool) error {
		if !bucket {
			return fmt.Errorf("root holds a key that is no bucket")
		}
		names = append(names, key)
		return f.walkBucket(value, string(key))
	})
	if err != nil {
		return err
	}
	if !slices.EqualFunc(names, buckets, bytes.Equal) && (len(names) > 0 || !allowNone) {
		return fmt.Errorf("buckets are %q, want %q", names, buckets)
	}
	return f.checkFreelist()
}

// readMetas requires both meta pages to be whole. bbolt is content with one and
// then falls back by a transaction, which would lose a committed write. The 64
// bytes lie in one disk sector, so a crash does not tear them.
func (f *boltFile) readMetas() error {
	if len(f.data) < 2*1024 {
		return fmt.Errorf("file of %d bytes is too short", len(f.data))
	}
	first, err := parseMeta(f.data, 0)
	if err != nil {
		return err
	}
	size := uint64(first.pageSize)
	if size < 1024 || size > 64<<10 || size&(size-1) != 0 || uint64(len(f.data)) < 2*size {
		return fmt.Errorf("page size %d", size)
	}
	second, err := parseMeta(f.data[size:], 1)
	if err != nil {
		return err
	}
	if second.pageSize != first.pageSize {
		return fmt.Errorf("meta pages disagree on the page size")
	}
	f.pageSize = size
	switch {
	case first.txid == second.txid+1:
		f.meta = first
	case second.txid == first.txid+1:
		f.meta = second
	default:
		return fmt.Errorf("meta pages of transactions %d and %d are not neighbours", first.txid, second.txid)
	}
	return nil
}

func parseMeta(page []byte, id uint64) (boltMeta, error) {
	le := binary.NativeEndian
	body := page[pageHeaderBytes : pageHeaderBytes+metaBytes]
	if le.Uint64(page) != id || le.Uint16(page[8:]) != flagMeta {
		return boltMeta{}, fmt.Errorf("page %d is no meta page", id)
	}
	sum := fnv.New64a()
	_, _ = sum.Write(body[:metaBytes-8])
	if le.Uint32(body) != boltMagic || le.Uint32(body[4:]) != boltVersion || le.Uint64(body[56:]) != sum.Sum64() {
		return boltMeta{}, fmt.Errorf("meta page %d fails its checksum", id)
	}
	return boltMeta{
		pageSize: le.Uint32(body[8:]),
		root:     le.Uint64(body[16:]),
		freelist: le.Uint64(body[32:]),
		pages:    le.Uint64(body[40:]),
		txid:     le.Uint64(body[48:]),
	}, nil
}

// page returns the bytes of a page with its overflow and marks them used.
func (f *boltFile) page(id uint64, user string) ([]byte, error) {
	le := binary.NativeEndian
	if id < 2 || id >= f.meta.pages {
		return nil, fmt.Errorf("%s refers to page %d of %d", user, id, f.meta.pages)
	}
	page := f.data[id*f.pageSize:]
	if le.Uint64(page) != id {
		return nil, fmt.Errorf("page %d says it is %d", id, le.Uint64(page))
	}
	count := 1 + uint64(le.Uint32(page[12:]))
	if count > f.meta.pages-id {
		return nil, fmt.Errorf("page %d spans %d pages", id, count)
	}
	for p := id; p < id+count; p++ {
		if other, used := f.owner[p]; used {
			return nil, fmt.Errorf("page %d is used by %s and %s", p, other, user)
		}
		f.owner[p] = user
	}
	return page[:count*f.pageSize], nil
}

// visit is called for each element of the leaves of a tree.
type visit func(key, value []byte, bucket bool) error

// walk checks the tree under a page. All its keys must be at least low and
// below high, where given.
func (f *boltFile) walk(id uint64, user string, low, high []byte, depth int, each visit) error {
	if depth > maxTreeDepth {
		return fmt.Errorf("tree of %s is deeper than %d", user, maxTreeDepth)
	}
	page, err := f.page(id, user)
	if err != nil {
		return err
	}
	elements, used, err := parsePage(page)
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	if need := max(1, (uint64(used)+f.pageSize-1)/f.pageSize); need*f.pageSize != uint64(len(page)) {
		return fmt.Errorf("page %d needs %d pages and spans %d", id, need, uint64(len(page))/f.pageSize)
	}
	if err := checkOrder(elements, low, high); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	for i, element := range elements {
		if !element.branch {
			if err := each(element.key, element.value, element.bucket); err != nil {
				return err
			}
			continue
		}
		next := high
		if i+1 < len(elements) {
			next = elements[i+1].key
		}
		if err := f.walk(element.child, user, element.key, next, depth+1, each); err != nil {
			return err
		}
	}
	return nil
}

// walkBucket checks a bucket by the value that describes it: a page number, or
// 0 and a leaf page inline.
func (f *boltFile) walkBucket(value []byte, name string) error {
	le := binary.NativeEndian
	plain := func(_, _ []byte, bucket bool) error {
		if bucket {
			return fmt.Errorf("bucket %q holds a bucket", name)
		}
		return nil
	}
	if len(value) < bucketBytes || le.Uint64(value[8:]) != 0 {
		return fmt.Errorf("bucket %q has a bad header", name)
	}
	if root := le.Uint64(value); root != 0 {
		if len(value) != bucketBytes {
			return fmt.Errorf("bucket %q has trailing bytes", name)
		}
		return f.walk(root, name, nil, nil, 0, plain)
	}
	inline := value[bucketBytes:]
	elements, used, err := parsePage(inline)
	if err != nil {
		return fmt.Errorf("inline bucket %q: %w", name, err)
	}
	if le.Uint64(inline) != 0 || le.Uint32(inline[12:]) != 0 || used != len(inline) {
		return fmt.Errorf("inline bucket %q is not packed", name)
	}
	for _, element := range elements {
		if element.branch || element.bucket {
			return fmt.Errorf("inline bucket %q holds more than values", name)
		}
	}
	return checkOrder(elements, nil, nil)
}

type boltElement struct {
	key, value []byte
	child      uint64
	branch     bool
	bucket     bool
}

// parsePage reads a leaf or branch page and returns its elements and how many
// bytes they fill. The data of the elements must follow each other without a
// gap right behind the element headers, as bbolt writes them.
func parsePage(page []byte) ([]boltElement, int, error) {
	le := binary.NativeEndian
	if len(page) < pageHeaderBytes {
		return nil, 0, fmt.Errorf("too short")
	}
	flags, count := le.Uint16(page[8:]), int(le.Uint16(page[10:]))
	if flags != flagLeaf && flags != flagBranch {
		return nil, 0, fmt.Errorf("flags %#x", flags)
	}
	if flags == flagBranch && count == 0 {
		return nil, 0, fmt.Errorf("branch without children")
	}
	next := pageHeaderBytes + count*leafElementBytes
	if next > len(page) {
		return nil, 0, fmt.Errorf("%d elements do not fit", count)
	}
	elements := make([]boltElement, count)
	for i := range elements {
		at := pageHeaderBytes + i*leafElementBytes
		head := page[at : at+leafElementBytes]
		var e boltElement
		var pos, keySize, valueSize uint32
		if flags == flagBranch {
			pos, keySize = le.Uint32(head), le.Uint32(head[4:])
			e.branch, e.child = true, le.Uint64(head[8:])
		} else {
			if leafFlags := le.Uint32(head); leafFlags > leafFlagBucket {
				return nil, 0, fmt.Errorf("element %d has flags %#x", i, leafFlags)
			}
			e.bucket = le.Uint32(head) == leafFlagBucket
			pos, keySize, valueSize = le.Uint32(head[4:]), le.Uint32(head[8:]), le.Uint32(head[12:])
		}
		size := uint64(keySize) + uint64(valueSize)
		if keySize == 0 || uint64(at)+uint64(pos) != uint64(next) || size > uint64(len(page)-next) {
			return nil, 0, fmt.Errorf("element %d is out of place", i)
		}
		e.key = page[next : next+int(keySize)]
		e.value = page[next+int(keySize) : next+int(size)]
		next += int(size)
		elements[i] = e
	}
	return elements, next, nil
}

func checkOrder(elements []boltElement, low, high []byte) error {
	for i, e := range elements {
		switch {
		case i > 0 && bytes.Compare(elements[i-1].key, e.key) >= 0,
			low != nil && bytes.Compare(e.key, low) < 0,
			high != nil && bytes.Compare(e.key, high) >= 0:
			return fmt.Errorf("key %d is out of order", i)
		}
	}
	return nil
}

// checkFreelist requires every page to be used exactly once or free.
func (f *boltFile) checkFreelist() error {
	le := binary.NativeEndian
	page, err := f.page(f.meta.freelist, "freelist")
	if err != nil {
		return err
	}
	if le.Uint16(page[8:]) != flagFreelist {
		return fmt.Errorf("page %d is no freelist", f.meta.freelist)
	}
	count, ids := uint64(le.Uint16(page[10:])), page[pageHeaderBytes:]
	if count == 0xFFFF {
		count, ids = le.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids))/8 {
		return fmt.Errorf("freelist of %d pages does not fit", count)
	}
	for i := range count {
		id := le.Uint64(ids[i*8:])
		if id < 2 || id >= f.meta.pages {
			return fmt.Errorf("freelist holds page %d of %d", id, f.meta.pages)
		}
		if other, used := f.owner[id]; used {
			return fmt.Errorf("page %d is free and used by %s", id, other)
		}
		f.owner[id] = "freelist entry"
	}
	if used := uint64(len(f.owner)); used != f.meta.pages {
		return fmt.Errorf("%d of %d pages are neither used nor free", f.meta.pages-used, f.meta.pages)
	}
	return nil
}
