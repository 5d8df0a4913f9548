package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

const (
	verifyPage = 500
	// maxVerifyAnswer bounds one answer of the API.
	maxVerifyAnswer = 64 << 20
	// maxNamedSeqs bounds the sequences that are named per conversation and
	// kind of difference.
	maxNamedSeqs = 20
	// apiTimeout bounds one call of the API.
	apiTimeout = 30 * time.Second
)

var errArchiveDiffers = errors.New("the archive differs from what the server answers")

// archiveVerifier compares conversations between the API and Postgres.
type archiveVerifier struct {
	store  *archive.Store
	server string
	out    io.Writer

	conversations, messages, different int
}

func (v *archiveVerifier) run(ctx context.Context, ids []string) error {
	each := func(id string) error {
		diffs, err := v.conversation(ctx, id)
		if err != nil {
			return fmt.Errorf("conversation %q: %w", id, err)
		}
		v.conversations++
		if len(diffs) > 0 {
			v.different++
		}
		for _, d := range diffs {
			fmt.Fprintf(v.out, "conversation %q: %s\n", id, d)
		}
		return nil
	}
	var err error
	if len(ids) == 0 {
		err = v.all(ctx, each)
	} else {
		for _, id := range ids {
			if err = each(id); err != nil {
				break
			}
		}
	}
	fmt.Fprintf(v.out, "%d conversations, %d archived messages compared, %d conversations differ\n", v.conversations, v.messages, v.different)
	if err == nil && v.different > 0 {
		err = errArchiveDiffers
	}
	return err
}

func (v *archiveVerifier) all(ctx context.Context, each func(id string) error) error {
	after := ""
	for {
		var page struct {
			Conversations []struct {
				ID string `json:"id"`
			} `json:"conversations"`
			Next *string `json:"next"`
		}
		if err := v.get(ctx, "/v1/conversations?limit=100&after="+url.QueryEscape(after), &page); err != nil {
			return err
		}
		for _, c := range page.Conversations {
			if err := each(c.ID); err != nil {
				return err
			}
		}
		if page.Next == nil || *page.Next == "" {
			return nil
		}
		after = *page.Next
	}
}

type apiConversation struct {
	LastSeq     uint64 `json:"last_seq"`
	ArchivedSeq uint64 `json:"archived_seq"`
	Head        string `json:"head"`
}

// findings gathers sequences by what is wrong with them.
type findings struct {
	kinds []string
	seqs  map[string][]uint64
	more  map[string]int
}

func (f *findings) add(kind string, seq uint64) {
	if f.seqs == nil {
		f.seqs, f.more = make(map[string][]uint64), make(map[string]int)
	}
	if !slices.Contains(f.kinds, kind) {
		f.kinds = append(f.kinds, kind)
	}
	if len(f.seqs[kind]) == maxNamedSeqs {
		f.more[kind]++
		return
	}
	f.seqs[kind] = append(f.seqs[kind], seq)
}

func (f *findings) list() []string {
	var out []string
	for _, kind := range f.kinds {
		text := fmt.Sprintf("%s: %v", kind, f.seqs[kind])
		if n := f.more[kind]; n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
		out = append(out, text)
	}
	return out
}

// conversation compares one and returns what differs.
func (v *archiveVerifier) conversation(ctx context.Context, id string) ([]string, error) {
	path := "/v1/conversations/" + url.PathEscape(id)
	var conv apiConversation
	if err := v.get(ctx, path, &conv); err != nil {
		return nil, err
	}
	held, err := v.store.Held(ctx, []archive.Want{{Key: rpc.Key(id), Seq: conv.ArchivedSeq}})
	if err != nil {
		return nil, err
	}
	var found findings
	if conv.ArchivedSeq > 0 && held[0].ArchivedSeq < conv.ArchivedSeq {
		found.add("the server counts messages as archived beyond Postgres' archived_seq", held[0].ArchivedSeq)
	}
	var chain [32]byte
	unserved := false
	for from := uint64(1); from <= conv.LastSeq; from += verifyPage {
		high := min(from+verifyPage-1, conv.LastSeq)
		rows, err := v.rows(ctx, id, from, min(high, conv.ArchivedSeq))
		if err != nil {
			return nil, err
		}
		served, err := v.served(ctx, path, from, high)
		if err != nil {
			// What the server cannot answer is still compared with the head.
			unserved = true
			found.add("the server does not answer ("+err.Error()+") from", from)
		}
		for seq := from; seq <= high; seq++ {
			chain = v.message(&found, chain, seq, conv.ArchivedSeq, rows, served, unserved)
		}
	}
	if conv.LastSeq > 0 && len(found.kinds) == 0 && hex.EncodeToString(chain[:]) != conv.Head {
		found.add("the hash chain does not end in the conversation's head, at", conv.LastSeq)
	}
	return found.list(), nil
}

// message compares one message and returns the chain's hash after it.
func (v *archiveVerifier) message(found *findings, chain [32]byte, seq, archived uint64, rows map[uint64]archive.Row, served map[uint64][]byte, unserved bool) [32]byte {
	row, isThere := rows[seq]
	body, answered := served[seq]
	if !answered {
		if !unserved {
			found.add("missing in the server's answer", seq)
		}
		body = row.JSON
	}
	next := state.Chain(chain, seq, body)
	if seq > archived {
		return next
	}
	v.messages++
	switch {
	case !isThere:
		found.add("missing in Postgres", seq)
	case string(row.JSON) != string(body):
		found.add("other content in Postgres", seq)
	case row.Hash != next:
		found.add("other hash in Postgres", seq)
	}
	return next
}

func (v *archiveVerifier) rows(ctx context.Context, id string, low, high uint64) (map[uint64]archive.Row, error) {
	if low > high {
		return nil, nil
	}
	list, err := v.store.Rows(ctx, rpc.Key(id), low, high)
	rows := make(map[uint64]archive.Row, len(list))
	for _, r := range list {
		rows[r.Seq] = r
	}
	return rows, err
}

// served reads a range through the API.
func (v *archiveVerifier) served(ctx context.Context, path string, low, high uint64) (map[uint64][]byte, error) {
	out := make(map[uint64][]byte, high-low+1)
	for low <= high {
		var page struct {
			Messages []json.RawMessage `json:"messages"`
		}
		if err := v.get(ctx, fmt.Sprintf("%s/messages?from=%d&limit=%d", path, low, high-low+1), &page); err != nil {
			return out, err
		}
		if len(page.Messages) == 0 {
			return out, nil
		}
		for _, m := range page.Messages {
			var of struct {
				Seq uint64 `json:"seq"`
			}
			if err := json.Unmarshal(m, &of); err != nil {
				return out, err
			}
			out[of.Seq] = m
			low = max(low, of.Seq+1)
		}
	}
	return out, nil
}

// get reads one JSON answer of the API.
func (v *archiveVerifier) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.server+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxVerifyAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var problem struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(body, &problem) == nil && problem.Error != "" {
			return fmt.Errorf("%d %s", resp.StatusCode, problem.Error)
		}
		return fmt.Errorf("%s", resp.Status)
	}
	return json.Unmarshal(body, into)
}
