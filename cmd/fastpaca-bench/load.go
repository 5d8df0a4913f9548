package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

const (
	// loaders are the connections that load messages, and loadBatch how many
	// messages each sends at once.
	loaders   = 4
	loadBatch = 25
	// loadedConversations is how many conversations the messages of memory and
	// start spread over.
	loadedConversations = 10_000
)

// createConversations makes the conversations 0 to n-1.
func createConversations(ctx context.Context, f *fastpaca, n int) error {
	return parallel(ctx, f, func(w *wire, worker int) error {
		for i := worker; i < n; i += loaders {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if _, err := w.must(200, "PUT", path(conversation(i)), []byte("{}")); err != nil {
				return err
			}
		}
		return nil
	})
}

// loadRound appends one batch to each of the conversations 0 to n-1.
func loadRound(ctx context.Context, f *fastpaca, n, batch int, bodies texts) error {
	return parallel(ctx, f, func(w *wire, worker int) error {
		var body []byte
		for i := worker; i < n; i += loaders {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			body = appendBatch(body[:0], batch, i, bodies)
			if _, err := w.must(201, "POST", path(conversation(i))+"/messages", body); err != nil {
				return err
			}
		}
		return nil
	})
}

// fillConversation appends n messages to one conversation.
func fillConversation(ctx context.Context, f *fastpaca, id string, n int, bodies texts) error {
	w, err := dialWire(ctx, f.server.Address())
	if err != nil {
		return err
	}
	defer w.close()
	if _, err := w.must(200, "PUT", path(id), []byte("{}")); err != nil {
		return err
	}
	const most = 1000
	for done := 0; done < n; done += most {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		body := appendBatch(nil, min(most, n-done), done, bodies)
		if _, err := w.must(201, "POST", path(id)+"/messages", body); err != nil {
			return err
		}
	}
	return nil
}

func appendBatch(dst []byte, n, first int, bodies texts) []byte {
	dst = append(dst, `{"messages":[`...)
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendMessage(dst, bodies.at(first*7+i))
	}
	return append(dst, "]}"...)
}

// parallel runs a function once per loader, each with a connection.
func parallel(ctx context.Context, f *fastpaca, work func(w *wire, worker int) error) error {
	var (
		wg       sync.WaitGroup
		failures = make([]error, loaders)
	)
	for i := range loaders {
		wg.Go(func() {
			w, err := dialWire(ctx, f.server.Address())
			if err != nil {
				failures[i] = err
				return
			}
			defer w.close()
			failures[i] = work(w, i)
		})
	}
	wg.Wait()
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return nil
}
