package api

import (
	"errors"
	"fmt"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Config bounds what requests may cost. DefaultConfig is a complete one.
type Config struct {
	// MaxBodyBytes bounds a request body; a longer one is answered 413.
	MaxBodyBytes int64
	// MaxInFlight bounds the requests under /v1 being served at a time; one
	// more is answered 503 overloaded before its body is read.
	MaxInFlight int
	// MaxBufferedBytes bounds the memory that request bodies and pages hold in
	// all requests together; what does not fit is answered 503 overloaded.
	MaxBufferedBytes int64
	// RequestTimeout bounds the time a request spends in the data plane,
	// counted from when its body was read.
	RequestTimeout time.Duration
	// MinSeqWait bounds how long a read waits for X-Fastpaca-Min-Seq.
	MinSeqWait time.Duration
	// ReadyTimeout bounds all readiness checks of one request together.
	ReadyTimeout time.Duration

	// AllowedOrigins are the origins whose web pages may use the API, beside
	// those of the same host and, between loopback addresses, of any: "*", or
	// scheme://host with an optional port, where the host may begin with "*." and
	// the port be "*".
	AllowedOrigins []string

	// ReadHeaderTimeout and ReadTimeout bound how long a client may take to
	// send the header and the whole request.
	ReadHeaderTimeout time.Duration
	ReadTimeout       time.Duration
	// WriteTimeout bounds the time from the end of the request header to the
	// end of the answer. Streams set their own deadlines.
	WriteTimeout time.Duration
	// IdleTimeout closes a kept-alive connection without requests.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds the request line and header.
	MaxHeaderBytes int
	// DrainDelay is how long a stopping server goes on accepting requests while
	// it reports not ready, so that load balancers can look away. Usually zero
	// on a single machine.
	DrainDelay time.Duration
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		MaxBodyBytes:      8 << 20,
		MaxInFlight:       8192,
		MaxBufferedBytes:  256 << 20,
		RequestTimeout:    15 * time.Second,
		MinSeqWait:        5 * time.Second,
		ReadyTimeout:      2 * time.Second,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      75 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

// Validate checks the configuration and joins everything that is wrong with it.
func (c *Config) Validate() error {
	var errs []error
	positive := func(name string, ok bool) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s must be positive", name))
		}
	}
	positive("MaxBodyBytes", c.MaxBodyBytes > 0)
	positive("MaxInFlight", c.MaxInFlight > 0)
	positive("MaxBufferedBytes", c.MaxBufferedBytes > 0)
	positive("RequestTimeout", c.RequestTimeout > 0)
	positive("MinSeqWait", c.MinSeqWait > 0)
	positive("ReadyTimeout", c.ReadyTimeout > 0)
	positive("ReadHeaderTimeout", c.ReadHeaderTimeout > 0)
	positive("ReadTimeout", c.ReadTimeout > 0)
	positive("WriteTimeout", c.WriteTimeout > 0)
	positive("IdleTimeout", c.IdleTimeout > 0)
	positive("MaxHeaderBytes", c.MaxHeaderBytes > 0)
	if _, err := parseOrigins(c.AllowedOrigins); err != nil {
		errs = append(errs, err)
	}
	if c.MaxBodyBytes > rpc.MaxAppendBytes {
		errs = append(errs, fmt.Errorf("MaxBodyBytes must not exceed %d, the bound of the data plane", rpc.MaxAppendBytes))
	}
	if c.MaxBufferedBytes < 2*c.MaxBodyBytes+rpc.MaxPageBytes {
		errs = append(errs, errors.New("MaxBufferedBytes must hold the largest request twice and the largest page"))
	}
	if c.WriteTimeout < c.ReadTimeout+c.RequestTimeout {
		errs = append(errs, errors.New("WriteTimeout must leave room for ReadTimeout and RequestTimeout"))
	}
	if c.DrainDelay < 0 {
		errs = append(errs, errors.New("DrainDelay must not be negative"))
	}
	return errors.Join(errs...)
}
