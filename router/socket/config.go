package socket

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fastpaca/fastpaca/router/stream"
)

// Config configures a Server. The zero value of everything but the first two
// takes the default named beside it.
type Config struct {
	// Hub has the streams. Required; the Server does not close it.
	Hub *stream.Hub
	// Log receives what goes wrong. Required.
	Log *slog.Logger
	// Registerer receives the metrics. Nil registers none.
	Registerer prometheus.Registerer

	// MaxConnections bounds the connections of all transports: 10,000.
	MaxConnections int
	// MaxSubscriptions bounds the topics joined on one Phoenix connection: 256.
	MaxSubscriptions int
	// MaxJoinRate bounds the joins of one Phoenix connection per second, on the
	// average; MaxSubscriptions may come at once: 50.
	MaxJoinRate int
	// NoCompression refuses permessage-deflate on the native WebSocket.
	NoCompression bool
	// CompressAbove is the size in bytes from which messages are compressed for
	// clients that can: 1 KiB.
	CompressAbove int
	// WriteTimeout ends a connection whose client has not taken one byte for so
	// long: 10 s.
	WriteTimeout time.Duration
	// SendBuffer is what the kernel may hold for one client, in bytes: 128 KiB.
	SendBuffer int
	// IdleTimeout ends a Phoenix connection that sends nothing, heartbeats
	// included: 120 s. A native one is pinged, and ends when it has not answered
	// for 75 s.
	IdleTimeout time.Duration
	// MaxFrameBytes bounds what a Phoenix client may send in one frame: 64 KiB.
	MaxFrameBytes int64
	// CloseTimeout bounds the wait for a client to answer a close: 2 s.
	CloseTimeout time.Duration
}

func (c *Config) withDefaults() {
	def(&c.MaxConnections, 10_000)
	def(&c.MaxSubscriptions, 256)
	def(&c.MaxJoinRate, 50)
	def(&c.CompressAbove, 1<<10)
	def(&c.WriteTimeout, 10*time.Second)
	def(&c.SendBuffer, 128<<10)
	def(&c.IdleTimeout, 120*time.Second)
	def(&c.MaxFrameBytes, 64<<10)
	def(&c.CloseTimeout, 2*time.Second)
}

func def[T comparable](value *T, standard T) {
	var zero T
	if *value == zero {
		*value = standard
	}
}

// validate checks the configuration and joins everything that is wrong with it.
func (c *Config) validate() error {
	var errs []error
	if c.Hub == nil || c.Log == nil {
		errs = append(errs, errors.New("the hub and the logger are required"))
	}
	for name, value := range map[string]int64{
		"MaxConnections": int64(c.MaxConnections), "MaxSubscriptions": int64(c.MaxSubscriptions), "MaxJoinRate": int64(c.MaxJoinRate),
		"CompressAbove": int64(c.CompressAbove), "WriteTimeout": int64(c.WriteTimeout), "SendBuffer": int64(c.SendBuffer),
		"IdleTimeout": int64(c.IdleTimeout), "MaxFrameBytes": c.MaxFrameBytes, "CloseTimeout": int64(c.CloseTimeout),
	} {
		if value <= 0 {
			errs = append(errs, fmt.Errorf("%s must be positive", name))
		}
	}
	return errors.Join(errs...)
}
