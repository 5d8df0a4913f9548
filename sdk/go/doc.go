// Package fastpaca is the Go client of Fastpaca, a message backend for AI
// agents: an append-only, ordered, replayable log per conversation.
//
//	client, err := fastpaca.New("http://127.0.0.1:4000")
//	conv := client.Conversation("chat-123")
//	conv.Put(ctx, map[string]any{"user_id": "u_123"})                     // create or get
//	conv.Append(ctx, fastpaca.TextMessage("user", "Hello!"))              // durable when it returns
//	messages, err := conv.Tail(ctx, 100)                                  // the newest hundred
//	for m, err := range conv.Subscribe(ctx, messages[0].Seq) { … }        // then live, each once
//
// # Retries
//
// Requests that meet passing trouble (no connection, a broken answer, 408, 429,
// 502, 503, 504) are repeated, with growing random waits and after what the
// server's Retry-After asks for, until they succeed, the attempts of Retry are
// used up, or the context ends. This never stores a message twice: every append
// carries message ids, and the server knows them.
//
// # Errors
//
// Every failure is an *Error, to be found with errors.As; for the decisions that
// programs take most, errors.Is finds ErrNotFound, ErrTombstoned, ErrConflict,
// ErrCursorExpired and ErrOutcomeUnknown. A context that ended is found as
// context.Canceled or context.DeadlineExceeded. Subscribe alone has one more
// type, *GapError.
//
// # Bytes
//
// Parts and metadata are JSON that this package does not interpret: they are
// sent and returned byte for byte, with members it does not know and numbers of
// any size. Message.Raw is the whole message as it is stored and hashed.
package fastpaca
