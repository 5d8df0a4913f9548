package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/urfave/cli/v2"
)

// logConfig is the logging part of every long-running role.
type logConfig struct {
	Level  string
	Format string
}

func (c *logConfig) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log-level", EnvVars: []string{"FASTPACA_LOG_LEVEL"}, Value: "info",
			Usage: "least severe `LEVEL` to log: debug, info, warn, error", Destination: &c.Level},
		&cli.StringFlag{Name: "log-format", EnvVars: []string{"FASTPACA_LOG_FORMAT"}, Value: "text",
			Usage: "log as text or json", Destination: &c.Format},
	}
}

// logger builds the process's logger.
func (c *logConfig) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", c.Level)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch strings.ToLower(c.Format) {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", c.Format)
}
