package streams

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

// EventSource is a stream of Server-Sent Events. It reads as browsers do, and
// keeps what they keep to themselves.
type EventSource struct {
	// Header is that of the answer.
	Header http.Header
	// LastID is the id that came last, Retry the newest pause that the server
	// asked for, in milliseconds.
	LastID string
	Retry  int
	// OnComment is called for each comment, by Next, unless it is nil.
	OnComment func()

	body   io.ReadCloser
	lines  *bufio.Reader
	cancel context.CancelFunc
}

// OpenEvents is Open for Server-Sent Events.
func OpenEvents(ctx context.Context, base, id string, o Options) (*EventSource, error) {
	target := base + client.Path(id) + "/events" + o.query()
	streaming, cancel := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(streaming, http.MethodGet, target, nil)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	request.Header = o.header()
	request.Header.Set("Accept", "text/event-stream")
	if o.Resume != nil {
		request.Header.Set("Last-Event-ID", strconv.FormatUint(*o.Resume, 10))
	}
	stop := context.AfterFunc(ctx, cancel)
	reply, err := o.httpClient().Do(request)
	if !stop() && err == nil {
		err = ctx.Err()
		_ = reply.Body.Close()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open a stream: %w: %w", ErrUnreachable, err)
	}
	if reply.StatusCode != http.StatusOK {
		defer cancel()
		return nil, refused(reply, nil)
	}
	return &EventSource{Header: reply.Header, body: reply.Body, lines: bufio.NewReader(reply.Body), cancel: cancel}, nil
}

func openEvents(ctx context.Context, base, id string, o Options) (Stream, error) {
	s, err := OpenEvents(ctx, base, id, o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Next implements Stream.
func (s *EventSource) Next(ctx context.Context) (Event, error) {
	defer context.AfterFunc(ctx, s.cancel)()
	var name, id string
	var data []string
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return Event{}, &ClosedError{Cause: err}
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data != nil:
			return s.event(name, id, data)
		case line == "":
			name, id = "", ""
		case field == "":
			if s.OnComment != nil {
				s.OnComment()
			}
		case field == "event":
			name = value
		case field == "id":
			id, s.LastID = value, value
		case field == "data":
			data = append(data, value)
		case field == "retry":
			if s.Retry, err = strconv.Atoi(value); err != nil {
				return Event{}, fmt.Errorf("server-sent event: retry: %w", err)
			}
		default:
			return Event{}, fmt.Errorf("server-sent event: unknown field in %.200q", line)
		}
	}
}

func (s *EventSource) event(name, id string, data []string) (Event, error) {
	e, err := decodeEvent([]byte(strings.Join(data, "\n")))
	if err == nil && e.Type != name {
		err = fmt.Errorf("server-sent event %q holds a %q", name, e.Type)
	}
	e.ID = id
	return e, err
}

// Close implements Stream.
func (s *EventSource) Close() {
	s.cancel()
	_ = s.body.Close()
}
