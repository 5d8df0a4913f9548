package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/mesh"
)

const (
	// clientPatience bounds how long a client looks for a member that answers.
	clientPatience = 5 * time.Second
	// clientPause is the wait after no member did.
	clientPause = 200 * time.Millisecond
	// attemptTimeout bounds one request.
	attemptTimeout = 15 * time.Second
	// maxAnswer bounds what is read of one.
	maxAnswer = 16 << 20
)

// ErrUnreachable: no member of the control plane answered. Nothing is known to
// have been done.
var ErrUnreachable = errors.New("no member of the control plane answered")

// Client speaks to the API over the internal network. It is used by one goroutine
// at a time.
type Client struct {
	addresses []string
	http      *http.Client
	patience  time.Duration
}

// NewClient returns a client of the members at some addresses. dial makes a
// connection of mesh.KindAdmin.
func NewClient(addresses []string, dial func(ctx context.Context, address string) (net.Conn, error)) *Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			conn, err := dial(ctx, address)
			if err != nil {
				return nil, &dialError{err}
			}
			return conn, nil
		},
		DisableCompression: true, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
	}
	return &Client{addresses: addresses, http: &http.Client{Transport: transport, Timeout: attemptTimeout}, patience: clientPatience}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// dialError tells that a request was not sent.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// Do makes a request of a path below Base. in is its JSON body, nil for none; out
// takes the answer, nil ignores it. A refusal is an *Error. A request that may
// have been heard is not repeated unless it only looks.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	deadline := time.Now().Add(c.patience)
	for tried := 1; ; tried++ {
		address := c.addresses[0]
		answer, err := c.attempt(ctx, method, "http://"+address+Base+path, body)
		if err == nil {
			if out == nil {
				return nil
			}
			if err := json.Unmarshal(answer, out); err != nil {
				return fmt.Errorf("%s %s: answer of %s: %w", method, path, address, err)
			}
			return nil
		}
		if ctx.Err() != nil || !again(method, err) {
			return err
		}
		// Another member may know better.
		c.addresses = append(c.addresses[1:len(c.addresses):len(c.addresses)], address)
		if tried%len(c.addresses) != 0 {
			continue
		}
		var refused *Error
		if time.Now().After(deadline) || mesh.Permanent(err) {
			if errors.As(err, &refused) {
				return err
			}
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		if !sleep(ctx, clientPause) {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// again reports whether a request may be made once more, to another member.
func again(method string, err error) bool {
	if refused, ok := errors.AsType[*Error](err); ok {
		return refused.Code == "control_unavailable" || refused.Code == "not_leader"
	}
	var unsent *dialError
	return method == http.MethodGet || errors.As(err, &unsent)
}

func (c *Client) attempt(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 == 2 {
		return answer, nil
	}
	refused := &Error{status: response.StatusCode}
	if json.Unmarshal(answer, refused) != nil || refused.Code == "" {
		refused.Code, refused.Message = "unexpected_answer", fmt.Sprintf("The member answered %s.", response.Status)
	}
	return nil, refused
}
