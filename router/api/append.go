package api

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strconv"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// appendMessages is the hot path. The body is parsed once into spans, the
// messages handed on are the client's bytes, and the answer is written by hand.
func (a *API) appendMessages(ctx context.Context, x *exchange, r *http.Request) error {
	if err := checkJSON(r.Header); err != nil {
		return err
	}
	idempotencyKey, err := readIdempotencyKey(r.Header)
	if err != nil {
		return err
	}
	body, err := a.readBody(x, r)
	if err != nil {
		return err
	}
	b := &x.batch
	if err := b.parse(body); err != nil {
		return err
	}
	req := rpc.AppendRequest{Key: x.key, Messages: b.messages}
	if b.guarded {
		version := b.ifVersion // not a pointer into what is pooled
		req.IfVersion = &version
	}
	if idempotencyKey != "" {
		req.IdempotencyKey = idempotencyKey
		req.BodyDigest = sha256.Sum256(body)
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout)
	defer cancel()
	called := time.Now()
	reply, err := a.backend.Append(ctx, &req)
	answered := time.Now()
	if err != nil {
		b.drop()
		a.measureAppend(x, called, answered, answered, err)
		return err
	}
	status := http.StatusCreated
	if reply.Duplicate {
		status = http.StatusOK
	}
	a.countAppended(reply)
	x.out = b.appendReply(x.out[:0], reply)
	x.send(status, x.out)
	a.measureAppend(x, called, answered, time.Now(), nil)
	return nil
}

func (a *API) countAppended(reply *rpc.AppendReply) {
	if reply.Duplicate {
		return
	}
	fresh := 0
	for i := range reply.Messages {
		if !reply.Messages[i].Duplicate {
			fresh++
			a.metrics.tokens.Observe(float64(reply.Messages[i].TokenCount))
		}
	}
	a.metrics.appended.Add(float64(fresh))
}

// appendReply appends the JSON answer to an append.
func (b *batch) appendReply(dst []byte, reply *rpc.AppendReply) []byte {
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, reply.Seq, 10)
	dst = append(dst, `,"version":`...)
	dst = strconv.AppendUint(dst, reply.Version, 10)
	dst = append(dst, `,"token_count":`...)
	dst = strconv.AppendUint(dst, reply.TokenCount, 10)
	if reply.Duplicate {
		dst = append(dst, `,"duplicate":true`...)
	}
	if !b.many {
		if len(reply.Messages) == 1 {
			dst = appendRevises(dst, reply.Messages[0].Revises)
		}
		return append(dst, '}')
	}
	dst = append(dst, `,"last_seq":`...)
	dst = strconv.AppendUint(dst, reply.LastSeq, 10)
	dst = append(dst, `,"messages":[`...)
	for i := range reply.Messages {
		m := &reply.Messages[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"seq":`...)
		dst = strconv.AppendUint(dst, m.Seq, 10)
		if i < len(b.given) && b.given[i].id != nil {
			dst = append(dst, `,"id":`...)
			dst = append(dst, b.given[i].id...)
		}
		dst = append(dst, `,"token_count":`...)
		dst = strconv.AppendUint(dst, m.TokenCount, 10)
		dst = appendRevises(dst, m.Revises)
		if m.Duplicate {
			dst = append(dst, `,"duplicate":true`...)
		}
		dst = append(dst, '}')
	}
	return append(dst, "]}"...)
}

func appendRevises(dst []byte, seq uint64) []byte {
	if seq == 0 {
		return dst
	}
	dst = append(dst, `,"revises":`...)
	return strconv.AppendUint(dst, seq, 10)
}
