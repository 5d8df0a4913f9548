package stream

// ring holds the newest messages of a topic, a run without holes. Its topic's
// mutex guards it.
type ring struct {
	frames []*Frame // oldest first
	bytes  int
}

func (r *ring) first() uint64 { return r.frames[0].Seq }

// push adds the message that follows, and drops old ones beyond the bounds. It
// returns by how much the bytes held have grown.
func (r *ring) push(f *Frame, maxMessages, maxBytes int) (grown int) {
	before := r.bytes
	r.frames = append(r.frames, f)
	r.bytes += len(f.Payload)
	drop := 0
	for len(r.frames)-drop > 1 && (len(r.frames)-drop > maxMessages || r.bytes > maxBytes) {
		r.bytes -= len(r.frames[drop].Payload)
		r.frames[drop] = nil
		drop++
	}
	r.frames = r.frames[drop:]
	return r.bytes - before
}

// clear empties the ring and returns the bytes it held.
func (r *ring) clear() (freed int) {
	freed = r.bytes
	*r = ring{}
	return freed
}

// from appends the messages from seq on to dst, up to max of them and about
// maxBytes, at least one. It appends none when the ring does not hold seq.
func (r *ring) from(seq uint64, dst []*Frame, max, maxBytes int) []*Frame {
	if len(r.frames) == 0 || seq < r.first() {
		return dst
	}
	at := seq - r.first()
	if at >= uint64(len(r.frames)) {
		return dst
	}
	return take(dst, r.frames[at:], max, maxBytes)
}

func take(dst, from []*Frame, max, maxBytes int) []*Frame {
	for _, f := range from {
		if max == 0 || maxBytes <= 0 {
			break
		}
		dst = append(dst, f)
		max--
		maxBytes -= len(f.Payload)
	}
	return dst
}
