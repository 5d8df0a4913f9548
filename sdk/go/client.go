package fastpaca

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/fastpaca/fastpaca/sdk/go/internal/contract"
)

// Client speaks to one Fastpaca deployment. It is safe for concurrent use, holds
// no goroutine, and needs no Close; make one and share it.
type Client struct {
	base      string // ends in /v1
	http      *http.Client
	header    http.Header
	timeout   time.Duration
	retry     Retry
	reconnect time.Duration
	idle      time.Duration // of a stream
	rest      *contract.Client

	// wait blocks for a duration or until the context ends; tests replace it.
	wait func(context.Context, time.Duration) error
}

// New returns a client of the server at a URL such as http://127.0.0.1:4000,
// with or without the trailing /v1. Nothing is sent yet. The error is an *Error
// with CodeInvalid.
func New(serverURL string, opts ...Option) (*Client, error) {
	base, err := baseURL(serverURL)
	if err != nil {
		return nil, err
	}
	c := &Client{
		base: base, header: http.Header{"User-Agent": {"fastpaca-go"}},
		timeout: DefaultTimeout, retry: DefaultRetry, idle: streamIdleTimeout, wait: wait,
	}
	var shared http.Client // over http.DefaultTransport
	c.http = &shared
	for _, opt := range opts {
		opt(c)
	}
	if err := c.retry.validate(); err != nil {
		return nil, err
	}
	// A redirected POST would arrive as a GET, and its answer look like success.
	c.http.CheckRedirect = readsOnly(c.http.CheckRedirect)
	c.rest = &contract.Client{Server: base + "/", Client: c}
	return c, nil
}

func baseURL(text string) (string, error) {
	const want = "want http://HOST:PORT or https://HOST"
	u, err := url.Parse(strings.TrimSpace(text))
	switch {
	case err != nil: // not quoted: it may hold a password
		return "", invalid("the server's URL cannot be read: %s", want)
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return "", invalid("the server's URL is %q: %s", u.Redacted(), want)
	}
	base := strings.TrimRight(u.String(), "/")
	if !strings.HasSuffix(base, "/v1") {
		base += "/v1"
	}
	return base, nil
}

// maxRedirects is what net/http allows too.
const maxRedirects = 10

func readsOnly(before func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, via []*http.Request) error {
		switch {
		case via[0].Method != http.MethodGet || len(via) >= maxRedirects:
			return http.ErrUseLastResponse
		case before != nil:
			return before(next, via)
		}
		return nil
	}
}

// Conversation returns a handle on a conversation. It sends nothing, and the
// conversation need not exist. Any id of 1 to 512 bytes of UTF-8 without NUL is
// fine, slashes and emoji included.
func (c *Client) Conversation(id string) *Conversation { return &Conversation{client: c, id: id} }

// ConversationInfo is a conversation as it stood when it was read.
type ConversationInfo struct {
	ID         string          `json:"id"`
	Version    int64           `json:"version"`    // 0 at first; rises by one with every append, whatever its number of messages
	Tombstoned bool            `json:"tombstoned"` // closed for writing; it can still be read
	Metadata   json.RawMessage `json:"metadata"`   // a JSON object, byte for byte
	LastSeq    int64           `json:"last_seq"`   // the newest message, 0 when there is none
	// ArchivedSeq: messages up to this one are in the archive.
	ArchivedSeq int64 `json:"archived_seq"`
	// Head is the hash chain at LastSeq, in hex. See the API's description of how
	// to recompute it from Message.Raw.
	Head      string    `json:"head"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

func infoOf(c contract.Conversation) ConversationInfo {
	return ConversationInfo{
		ID: c.Id, Version: c.Version, Tombstoned: c.Tombstoned, Metadata: c.Metadata, LastSeq: c.LastSeq,
		ArchivedSeq: c.ArchivedSeq, Head: c.Head, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
	}
}

// ListQuery selects conversations. The zero value starts at the first one.
type ListQuery struct {
	Prefix      string      // only ids that start with it
	Limit       int         // of one page; 0 for the server's default, at most 1000
	After       string      // the Next of the page before
	Consistency Consistency // Leader if empty
}

// ConversationPage is a page of a list. It may be empty and not the last.
type ConversationPage struct {
	Conversations []ConversationInfo // ascending by the bytes of their ids
	Next          string             // for ListQuery.After; empty on the last page
}

// List returns one page of conversations.
func (c *Client) List(ctx context.Context, q ListQuery) (ConversationPage, error) {
	const op = "list conversations"
	params := contract.ListConversationsParams{
		Prefix: given(q.Prefix), Limit: given(int64(q.Limit)), After: given(q.After),
		Consistency: given(contract.ListConversationsParamsConsistency(q.Consistency)),
	}
	var list contract.ConversationList
	if err := decode(&list, op)(c.rest.ListConversations(ctx, &params)); err != nil {
		return ConversationPage{}, err
	}
	page := ConversationPage{Conversations: make([]ConversationInfo, len(list.Conversations))}
	for i, info := range list.Conversations {
		page.Conversations[i] = infoOf(info)
	}
	if list.Next != nil {
		page.Next = *list.Next
	}
	return page, nil
}

// Conversations ranges over all conversations whose id starts with the prefix,
// page by page. An error ends it.
func (c *Client) Conversations(ctx context.Context, prefix string) iter.Seq2[ConversationInfo, error] {
	return func(yield func(ConversationInfo, error) bool) {
		q := ListQuery{Prefix: prefix, Limit: maxPage}
		for {
			page, err := c.List(ctx, q)
			if err != nil {
				yield(ConversationInfo{}, err)
				return
			}
			for _, info := range page.Conversations {
				if !yield(info, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			q.After = page.Next
		}
	}
}

// given makes a parameter of a value that may be zero for absent.
func given[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}
