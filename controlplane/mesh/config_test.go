package mesh

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*Config)
		want   string // empty: valid
	}{
		"certificate without key": {func(c *Config) { c.Credentials.CertFile, c.Credentials.CAFile = "c", "a" }, "the key file is missing"},
		"CA alone":                {func(c *Config) { c.Credentials.CAFile = "a" }, "the certificate file is missing"},
		"cluster id with newline": {func(c *Config) { c.ClusterID = "a\nb" }, "cluster id"},
		"data node without id":    {func(c *Config) { c.ID = "" }, "id is empty"},
		"good":                    {func(*Config) {}, ""},
		"id too long":             {func(c *Config) { c.ID = strings.Repeat("x", MaxIDBytes+1) }, "longer than 255"},
		"id with a space":         {func(c *Config) { c.ID = "a b" }, "not printable ASCII"},
		"key without certificate": {func(c *Config) { c.Credentials.KeyFile, c.Credentials.CAFile = "k", "a" }, "the certificate file is missing"},
		"longest id":              {func(c *Config) { c.ID = strings.Repeat("x", MaxIDBytes) }, ""},
		"name without TLS":        {func(c *Config) { c.Credentials.ServerName = "n" }, "has no effect"},
		"no credentials":          {func(c *Config) { c.Credentials = Credentials{} }, ""},
		"no logger":               {func(c *Config) { c.Logger = nil }, "logger is missing"},
		"no role":                 {func(c *Config) { c.Role = 0 }, "unknown role(0)"},
		"router without id":       {func(c *Config) { c.Role, c.ID = RoleRouter, "" }, ""},
		"short token":             {func(c *Config) { c.Credentials.Token = tokenA[:MinTokenBytes-1] }, "shorter than 16"},
		"shortest token":          {func(c *Config) { c.Credentials.Token = tokenA[:MinTokenBytes] }, ""},
		"token from an echo":      {func(c *Config) { c.Credentials.Token = tokenA + "\n" }, "white space"},
		"token too long":          {func(c *Config) { c.Credentials.Token = Token(strings.Repeat("x", MaxTokenBytes+1)) }, "longer than"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := node("d1", Credentials{Token: tokenA})
			test.change(&conf)
			err := conf.Validate()
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	conf := Config{ID: "a b", Credentials: Credentials{Token: "short", CertFile: "/nonexistent/cert"}}
	_, err := Listen("nonsense:port:x", conf)
	for _, want := range []string{"unknown role(0)", "not printable", "shorter than 16", "the key file", "the CA file", "logger", "listen"} {
		require.ErrorContains(t, err, want)
	}
	_, err = Listen(local, conf)
	require.ErrorContains(t, err, "/nonexistent/cert")
	require.ErrorContains(t, err, "shorter than 16")
	_, err = NewDialer(conf)
	require.ErrorContains(t, err, "/nonexistent/cert")
	require.ErrorContains(t, err, "shorter than 16")
}

// fakeListener is a listener at an address that the machine need not have.
type fakeListener struct {
	net.Listener
	addr   net.Addr
	closed bool
}

func (f *fakeListener) Addr() net.Addr { return f.addr }
func (f *fakeListener) Close() error   { f.closed = true; return nil }

func TestExposureNeedsCredentials(t *testing.T) {
	t.Parallel()
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	exposed := map[string]net.Addr{
		"any":     &net.TCPAddr{Port: 1},
		"any v6":  &net.TCPAddr{IP: net.IPv6zero, Port: 1},
		"network": &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1},
		"unknown": &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)},
	}
	bare := node("d1", Credentials{})
	for name, addr := range exposed {
		require.ErrorContains(t, bare.checkExposure(addr), "token or TLS", name)
	}
	require.NoError(t, bare.checkExposure(loopback))
	require.NoError(t, bare.checkExposure(&net.TCPAddr{IP: net.IPv6loopback}))
	require.NoError(t, bare.checkExposure(&net.UnixAddr{Name: "s"}))

	allowed := []func(*Config){
		func(c *Config) { c.Insecure = true },
		func(c *Config) { c.Credentials.Token = tokenA },
		func(c *Config) { c.Credentials.CertFile = "c" },
	}
	for _, change := range allowed {
		conf := bare
		change(&conf)
		require.NoError(t, conf.checkExposure(exposed["network"]))
	}

	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		_, err := Listen(addr, bare)
		require.ErrorContains(t, err, "token or TLS", addr)
	}
	// A listener that was refused still belongs to the caller.
	ln := &fakeListener{addr: exposed["network"]}
	_, err := Serve(ln, bare)
	require.ErrorContains(t, err, "token or TLS")
	require.False(t, ln.closed)

	insecure := bare
	insecure.Insecure = true
	l, err := Listen("0.0.0.0:0", insecure)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestListenNeedsAnAddress(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:nonsense"} {
		_, err := Listen(addr, node("d1", Credentials{Token: tokenA}))
		require.ErrorContains(t, err, "mesh: listen", addr)
	}
}

func TestListenOnTakenPort(t *testing.T) {
	t.Parallel()
	l := mustListen(t, node("d1", Credentials{}))
	_, err := Listen(l.Addr().String(), node("d2", Credentials{}))
	require.ErrorContains(t, err, "mesh: listen")
}

func TestTokenNeverPrints(t *testing.T) {
	t.Parallel()
	conf := node("d1", Credentials{Token: tokenA})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T%v"} {
		for _, value := range []any{tokenA, conf.Credentials, &conf.Credentials, conf} {
			args := []any{value}
			if verb == "%T%v" {
				args = append(args, value)
			}
			out := fmt.Sprintf(verb, args...)
			require.NotContains(t, out, string(tokenA), verb)
			require.NotContains(t, strings.ToLower(out), fmt.Sprintf("%x", string(tokenA)), verb)
		}
	}
	encoded, err := json.Marshal(conf.Credentials)
	require.NoError(t, err)
	require.NotContains(t, string(encoded), string(tokenA))
	require.Contains(t, string(encoded), "[redacted]")

	var logs logRecorder
	logs.logger(slog.LevelDebug).Info("x", "token", tokenA, "credentials", conf.Credentials)
	slog.New(slog.NewJSONHandler(&logs, nil)).Info("x", "token", tokenA, "credentials", conf.Credentials)
	require.NotContains(t, strings.Join(logs.lines(), ""), string(tokenA))
	require.Empty(t, Token("").String())
}

func TestNames(t *testing.T) {
	t.Parallel()
	require.Equal(t, "data", RoleData.String())
	require.Equal(t, "role(77)", Role(77).String())
	require.Equal(t, "control-raft", KindControlRaft.String())
	require.Equal(t, "kind(77)", Kind(77).String())
	for c, known := range reasons {
		require.NotEmpty(t, known.name)
		require.ErrorIs(t, refuse(c, "x"), known.sentinel)
	}
	require.ErrorIs(t, &refusal{code: 200}, ErrProtocol)
}

func TestPermanent(t *testing.T) {
	t.Parallel()
	require.True(t, Permanent(fmt.Errorf("dial: %w", ErrUnauthorized)))
	require.True(t, Permanent(refuse(codeWrongCluster, "")))
	require.False(t, Permanent(ErrBusy))
	require.False(t, Permanent(ErrUnknownKind))
	require.False(t, Permanent(net.ErrClosed))
	require.False(t, Permanent(nil))
}
