package remote

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// codecName is the content-subtype of the Write stream.
const codecName = "fastpaca-frame"

func init() {
	// gRPC finds the codec of a stream by its content-subtype, in a registry
	// that can only be filled here.
	encoding.RegisterCodecV2(frameCodec{})
}

// frameCodec hands the frames of the Write stream to gRPC as they are.
type frameCodec struct{}

// outFrame is a frame to send. SendMsg takes over its bytes.
type outFrame struct{ buf *[]byte }

// inFrame is a received frame. Receiving into it again replaces it.
type inFrame struct {
	// keep: bytes is the garbage collector's, so that what is decoded from it
	// may alias it. Else it is valid until release.
	keep  bool
	bytes []byte
	buf   mem.Buffer
}

func (f *inFrame) release() {
	if f.buf != nil {
		f.buf.Free()
		f.buf, f.bytes = nil, nil
	}
}

func (frameCodec) Name() string { return codecName }

func (frameCodec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*outFrame)
	if !ok {
		return nil, fmt.Errorf("%s: cannot send a %T", codecName, v)
	}
	return mem.BufferSlice{mem.NewBuffer(f.buf, frames)}, nil
}

func (frameCodec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*inFrame)
	if !ok {
		return fmt.Errorf("%s: cannot receive a %T", codecName, v)
	}
	if f.keep {
		f.bytes = data.Materialize()
		return nil
	}
	f.release()
	f.buf = data.MaterializeToBuffer(mem.DefaultBufferPool())
	f.bytes = f.buf.ReadOnlyData()
	return nil
}

const (
	// minFrameBuffer is the capacity a frame's buffer starts with. It is above
	// the size below which gRPC would not give it back.
	minFrameBuffer = 4 << 10
	// maxFrameBuffer is the largest buffer that is kept for another frame: a
	// frame of many requests fits, one of a single big request does not.
	maxFrameBuffer = maxFrameBytes + maxSmallRequest
)

// frames are the buffers of outgoing frames. gRPC puts them back when their
// bytes are written.
var frames = &framePool{}

type framePool struct{ pool sync.Pool }

// empty returns a buffer of length 0 and a capacity of at least n.
func (p *framePool) empty(n int) *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok && cap(*b) >= n {
		*b = (*b)[:0]
		return b
	}
	b := make([]byte, 0, max(n, minFrameBuffer))
	return &b
}

// Get implements mem.BufferPool.
func (p *framePool) Get(n int) *[]byte {
	b := p.empty(n)
	*b = (*b)[:n]
	return b
}

// Put implements mem.BufferPool.
func (p *framePool) Put(b *[]byte) {
	if cap(*b) <= maxFrameBuffer {
		p.pool.Put(b)
	}
}
