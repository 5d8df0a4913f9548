package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// exchangeTimeout bounds one request, so that a server that hangs ends a
// benchmark.
const exchangeTimeout = 30 * time.Second

// wire is a kept-alive HTTP/1.1 connection that does as little as a client can
// do: the client shares the machine with what is measured. Not safe for
// concurrent use.
type wire struct {
	conn   net.Conn
	reader *bufio.Reader
	host   string
	out    []byte
	body   []byte // of the last answer, reused
}

func dialWire(ctx context.Context, address string) (*wire, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &wire{conn: conn, reader: bufio.NewReaderSize(conn, 64<<10), host: address}, nil
}

func (w *wire) close() { _ = w.conn.Close() }

// do sends a request and returns the status and the body, which is valid until
// the next call.
func (w *wire) do(method, target string, body []byte) (int, []byte, error) {
	w.out = w.out[:0]
	w.out = append(w.out, method...)
	w.out = append(w.out, ' ')
	w.out = append(w.out, target...)
	w.out = append(w.out, " HTTP/1.1\r\nHost: "...)
	w.out = append(w.out, w.host...)
	if body != nil {
		w.out = append(w.out, "\r\nContent-Type: application/json\r\nContent-Length: "...)
		w.out = strconv.AppendInt(w.out, int64(len(body)), 10)
	}
	w.out = append(w.out, "\r\n\r\n"...)
	w.out = append(w.out, body...)
	if err := w.conn.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return 0, nil, err
	}
	if _, err := w.conn.Write(w.out); err != nil {
		return 0, nil, err
	}
	return w.readAnswer()
}

func (w *wire) readAnswer() (int, []byte, error) {
	line, err := w.reader.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	status, err := parseStatus(line)
	if err != nil {
		return 0, nil, err
	}
	length, chunked := -1, false
	for {
		if line, err = w.reader.ReadSlice('\n'); err != nil {
			return 0, nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, nil, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		}
	}
	w.body = w.body[:0]
	switch {
	case chunked:
		err = w.readChunks()
	case length >= 0:
		err = w.readBody(length)
	case status != 204:
		err = errors.New("an answer without a length")
	}
	return status, w.body, err
}

func parseStatus(line []byte) (int, error) {
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, fmt.Errorf("not an HTTP/1.1 answer: %q", line)
	}
	return strconv.Atoi(string(line[9:12]))
}

// readBody appends n bytes to the body.
func (w *wire) readBody(n int) error {
	start := len(w.body)
	w.body = append(w.body, make([]byte, n)...)
	_, err := io.ReadFull(w.reader, w.body[start:])
	return err
}

func (w *wire) readChunks() error {
	for {
		line, err := w.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return err
		}
		if err := w.readBody(int(size)); err != nil {
			return err
		}
		if _, err := w.reader.Discard(2); err != nil {
			return err
		}
		if size == 0 {
			return nil
		}
	}
}

// must is do, with any other answer than the wanted one as an error.
func (w *wire) must(want int, method, target string, body []byte) ([]byte, error) {
	status, answer, err := w.do(method, target, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, target, err)
	}
	if status != want {
		return nil, fmt.Errorf("%s %s: %d %.300s", method, target, status, answer)
	}
	return answer, nil
}
