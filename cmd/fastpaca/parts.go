package main

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// parts are what a process runs, in the order in which it was started. They are
// stopped in reverse, so that everything a part needs outlives it.
type parts struct {
	stops []func(context.Context) error
}

// add remembers how to stop a part that has started.
func (p *parts) add(name string, stop func(context.Context) error) {
	p.stops = append(p.stops, func(ctx context.Context) error {
		if err := stop(ctx); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		return nil
	})
}

func (p *parts) addCloser(name string, c io.Closer) {
	p.add(name, func(context.Context) error { return c.Close() })
}

// stop ends all parts and reports everything that went wrong.
func (p *parts) stop(ctx context.Context) error {
	var errs []error
	for len(p.stops) > 0 {
		last := len(p.stops) - 1
		stop := p.stops[last]
		p.stops = p.stops[:last]
		errs = append(errs, stop(ctx))
	}
	return errors.Join(errs...)
}
