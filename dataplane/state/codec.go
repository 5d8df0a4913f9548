package state

import "encoding/binary"

// decoder reads the binary encodings of this package. A read beyond the end or
// of a malformed number yields zeros and marks the input as bad, which callers
// check once at the end. Slices alias the input.
type decoder struct {
	in  []byte
	bad bool
}

func (d *decoder) byte() byte {
	if len(d.in) == 0 {
		d.bad = true
		return 0
	}
	b := d.in[0]
	d.in = d.in[1:]
	return b
}

// uvarint accepts only the shortest encoding of a number, so that equal values
// have equal bytes.
func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.in)
	if n <= 0 || n > 1 && d.in[n-1] == 0 {
		d.bad, d.in = true, nil
		return 0
	}
	d.in = d.in[n:]
	return v
}

func (d *decoder) take(n int) []byte {
	if n > len(d.in) {
		d.bad, d.in = true, nil
		return nil
	}
	b := d.in[:n:n]
	d.in = d.in[n:]
	return b
}

// bounded reads a length of at least low and at most high, and that many bytes.
func (d *decoder) bounded(low, high int) []byte {
	n := d.uvarint()
	if n < uint64(low) || n > uint64(high) {
		d.bad, d.in = true, nil
		return nil
	}
	return d.take(int(n))
}

// count reads a number of things of at least one byte each.
func (d *decoder) count(low, high int) int {
	n := d.uvarint()
	if n < uint64(low) || n > uint64(high) || n > uint64(len(d.in)) {
		d.bad, d.in = true, nil
		return 0
	}
	return int(n)
}

// digest reads 32 bytes.
func (d *decoder) digest() *[32]byte {
	b := d.take(32)
	if b == nil {
		return new([32]byte)
	}
	return (*[32]byte)(b)
}

func (d *decoder) done() bool { return !d.bad && len(d.in) == 0 }

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint16() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}
