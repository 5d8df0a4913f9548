package fastpaca

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"
)

// maxFrameBytes bounds one event of a stream: several times the largest message.
const maxFrameBytes = 8 << 20

var errFrameTooLarge = errors.New("an event of the stream is larger than any can be")

// frames reads server-sent events. Only their data matters here: it names the
// kind of event and its sequence itself.
type frames struct {
	in *bufio.Reader
	// retry is how long the server last asked to wait before reconnecting; 0 if
	// it has not.
	retry time.Duration
	// alive is called before and after each read that may block, for a watchdog.
	alive func()
}

// next returns the data of the next event. It is valid until the next call. A
// stream that ends within an event loses it, as the format wants.
func (f *frames) next(data []byte) ([]byte, error) {
	data = data[:0]
	filled := false
	for {
		line, err := f.line()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			if filled {
				return data, nil
			}
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "data":
			if filled {
				data = append(data, '\n')
			}
			filled = true
			if data = append(data, value...); len(data) > maxFrameBytes {
				return nil, errFrameTooLarge
			}
		case "retry":
			if ms, err := strconv.ParseUint(string(value), 10, 32); err == nil {
				f.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
}

// line returns a line without its end, valid until the next call.
func (f *frames) line() ([]byte, error) {
	f.alive()
	line, err := f.in.ReadSlice('\n')
	f.alive()
	if errors.Is(err, bufio.ErrBufferFull) {
		whole := bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			if len(whole) > maxFrameBytes {
				return nil, errFrameTooLarge
			}
			line, err = f.in.ReadSlice('\n')
			f.alive()
			whole = append(whole, line...)
		}
		line = whole
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // a stream ends only by breaking
	}
	if err != nil {
		return nil, err
	}
	line = line[:len(line)-1]
	return bytes.TrimSuffix(line, []byte("\r")), nil
}
