package remote

import (
	"errors"
	"fmt"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// ErrInvalidRequest: the request is beyond the bounds of package rpc, and
// nothing was sent or done. Both sides check: the client so that a mistake costs
// no hop, the server because another program may be wrong.
var ErrInvalidRequest = errors.New("request is out of bounds")

// maxListConversations bounds the limit of one List, so that its answer fits
// into maxReplyBytes.
const maxListConversations = 1000

func validateKey(key rpc.Key) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: the key is empty", rpc.ErrInvalidID)
	case len(key) > rpc.MaxKeyBytes:
		return fmt.Errorf("%w: the key is longer than %d bytes", rpc.ErrInvalidID, rpc.MaxKeyBytes)
	}
	return nil
}

func validateAppend(req *rpc.AppendRequest) error {
	if err := validateKey(req.Key); err != nil {
		return err
	}
	if n := len(req.Messages); n == 0 || n > rpc.MaxAppendMessages {
		return fmt.Errorf("%w: %d messages", ErrInvalidRequest, n)
	}
	if n := len(req.IdempotencyKey); n > rpc.MaxIdempotencyKeyBytes {
		return fmt.Errorf("%w: an idempotency key of %d bytes", ErrInvalidRequest, n)
	}
	total := 0
	for i := range req.Messages {
		m := &req.Messages[i]
		if n := len(m.Content); n == 0 || n > rpc.MaxMessageBytes {
			return fmt.Errorf("%w: message %d has %d bytes of content", ErrInvalidRequest, i, n)
		}
		if n := len(m.ID); n > rpc.MaxMessageIDBytes {
			return fmt.Errorf("%w: message %d has an id of %d bytes", ErrInvalidRequest, i, n)
		}
		total += len(m.Content)
	}
	if total > rpc.MaxAppendBytes {
		return fmt.Errorf("%w: %d bytes of content", ErrInvalidRequest, total)
	}
	return nil
}

func validatePut(req *rpc.PutRequest) error {
	if err := validateKey(req.Key); err != nil {
		return err
	}
	if n := len(req.Metadata); n > rpc.MaxMetadataBytes {
		return fmt.Errorf("%w: %d bytes of metadata", ErrInvalidRequest, n)
	}
	return nil
}

func (w *write) validate() error {
	switch w.kind {
	case opAppend:
		return validateAppend(w.append)
	case opPut:
		return validatePut(w.put)
	default:
		return validateKey(w.key)
	}
}

func validateRead(key rpc.Key, opts rpc.ReadOptions) error {
	if opts.Consistency > rpc.Stale {
		return fmt.Errorf("%w: consistency %d", ErrInvalidRequest, opts.Consistency)
	}
	return validateKey(key)
}

func validateList(req *rpc.ListRequest) error {
	switch {
	case len(req.Groups) > rpc.Groups:
		return fmt.Errorf("%w: %d groups", ErrInvalidRequest, len(req.Groups))
	case req.Limit > maxListConversations:
		return fmt.Errorf("%w: a limit of %d", ErrInvalidRequest, req.Limit)
	case len(req.Prefix) > rpc.MaxKeyBytes || len(req.After) > rpc.MaxKeyBytes:
		return fmt.Errorf("%w: a prefix or cursor longer than %d bytes", ErrInvalidRequest, rpc.MaxKeyBytes)
	case req.Consistency > rpc.Stale:
		return fmt.Errorf("%w: consistency %d", ErrInvalidRequest, req.Consistency)
	}
	return nil
}
