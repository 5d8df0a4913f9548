package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// healthConfig is everything `fastpaca health` can be told.
type healthConfig struct {
	URL     string
	Timeout time.Duration
}

const (
	// readyPath is asked when the URL names none.
	readyPath = "/health/ready"
	// maxHealthAnswer bounds what is read of an answer.
	maxHealthAnswer = 64 << 10
)

func (c *healthConfig) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "url", EnvVars: []string{"FASTPACA_URL"}, Value: "http://127.0.0.1:4000",
			Usage: "`URL` of the process; without a path, its /health/ready is asked", Destination: &c.URL},
		&cli.DurationFlag{Name: "timeout", EnvVars: []string{"FASTPACA_TIMEOUT"}, Value: 3 * time.Second,
			Usage: "how long the answer may take, as a `DURATION`", Destination: &c.Timeout},
	}
}

func (c *healthConfig) validate() error {
	if c.Timeout <= 0 {
		return fmt.Errorf("--timeout %s: want more than 0", c.Timeout)
	}
	_, err := c.target()
	return err
}

// target returns the page to ask.
func (c *healthConfig) target() (string, error) {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", fmt.Errorf("--url %q: want http://HOST:PORT", c.URL)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = readyPath
	}
	return u.String(), nil
}

// healthCommand is the health check of a container, whose image has no shell
// and no curl.
func healthCommand() *cli.Command {
	var conf healthConfig
	return &cli.Command{
		Name:  "health",
		Usage: "ask a process whether it is ready; exits 0 if it is, 1 if not",
		Description: "Routers and `serve` answer on their public address, the other roles on --ops-listen.\n" +
			"/health/ready says whether the process can do its work, /health/live whether it runs.\n\n" +
			"Example:\n   fastpaca health --url http://127.0.0.1:4000",
		Flags: conf.flags(),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), conf.validate()); err != nil {
				return usageError{err}
			}
			return conf.ask(c.Context, c.App.Writer)
		},
	}
}

// ask prints the answer on one line, and returns an error unless it is good.
func (c *healthConfig) ask(ctx context.Context, w io.Writer) error {
	target, err := c.target()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	// The process itself is meant, never a proxy of the environment.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHealthAnswer))
	if err != nil {
		return fmt.Errorf("health: read the answer of %s: %w", target, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not well: %s answered %d: %s", target, resp.StatusCode, healthReason(body))
	}
	_, err = fmt.Fprintln(w, "ok")
	return err
}

// healthReason is what an answer gives as its reason, or the start of an answer
// that is not ours.
func healthReason(body []byte) string {
	var answer struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.Reason != "" {
		return answer.Reason
	}
	const most = 200
	return fmt.Sprintf("%.*q", most, body)
}
