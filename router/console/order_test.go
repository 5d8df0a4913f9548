package console

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	testToken = "the-token-of-the-cluster"
	toOrders  = "/console/api/orders"
)

// give gives an order as the page does.
func give(c *Console, token, body string, headers ...string) *httptest.ResponseRecorder {
	headers = append([]string{"Content-Type", "application/json", "Authorization", "Bearer " + token}, headers...)
	return ask(c, http.MethodPost, toOrders, body, headers...)
}

func TestOrdersAreTranslated(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ body, asked, refused string }{
		{`{"order":"drain","node":"d1"}`, `POST /nodes/d1/drain {}`, ""},
		{`{"order":"drain","node":"d1","dry_run":true}`, `POST /nodes/d1/drain {"dry_run":true}`, ""},
		{`{"order":"undrain","node":"d1"}`, `POST /nodes/d1/undrain`, ""},
		{`{"order":"drain","node":"../rebalance"}`, `POST /nodes/..%2Frebalance/drain {}`, ""},
		{`{"order":"drain","node":".."}`, `POST /nodes/%2E%2E/drain {}`, ""},
		{`{"order":"drain","node":"a?b#c"}`, `POST /nodes/a%3Fb%23c/drain {}`, ""},
		{`{"order":"rebalance"}`, `POST /rebalance {}`, ""},
		{`{"order":"rebalance","dry_run":true}`, `POST /rebalance {"dry_run":true}`, ""},
		{`{"order":"cancel_rebalance"}`, `DELETE /rebalance`, ""},
		{`{"order":"transfer_leader","group":0,"node":"d2"}`, `POST /groups/0/transfer-leader {"to":"d2"}`, ""},
		{`{"order":"transfer_leader","group":255,"node":"d\"2"}`, `POST /groups/255/transfer-leader {"to":"d\"2"}`, ""},
		{`{"order":"abort","move":18446744073709551615}`, `DELETE /moves/18446744073709551615`, ""},

		{`{"order":"drain"}`, "", "invalid_request"},
		{`{"order":"drain","node":"` + strings.Repeat("x", maxNodeBytes+1) + `"}`, "", "invalid_request"},
		{`{"order":"transfer_leader","node":"d2"}`, "", "invalid_request"},
		{`{"order":"transfer_leader","group":256,"node":"d2"}`, "", "invalid_request"},
		{`{"order":"transfer_leader","group":-1,"node":"d2"}`, "", "invalid_request"},
		{`{"order":"transfer_leader","group":1}`, "", "invalid_request"},
		{`{"order":"abort"}`, "", "invalid_request"},
		{`{"order":"remove","node":"d1"}`, "", "invalid_request"},
		{`{"order":"GET /status"}`, "", "invalid_request"},
		{`{}`, "", "invalid_request"},
		{`{"order":"abort","move":-1}`, "", "invalid_json"},
		{`{"order":"rebalance","path":"/x"}`, "", "invalid_json"},
		{`{"order":"rebalance"}{"order":"rebalance"}`, "", "invalid_json"},
		{`[]`, "", "invalid_json"},
		{``, "", "invalid_json"},
	} {
		operator := &fakeOperator{token: testToken}
		c, log := open(t, Config{Operator: operator})
		got := give(c, testToken, row.body)
		if row.refused != "" {
			require.Equal(t, row.refused, code(t, got), row.body)
			require.Empty(t, operator.asked, row.body)
			continue
		}
		require.Equal(t, http.StatusOK, got.Code, row.body)
		require.JSONEq(t, `{"version":7}`, got.Body.String())
		require.Equal(t, []string{row.asked}, operator.asked)
		require.Contains(t, log.String(), "an operator gave an order")
		require.NotContains(t, log.String(), testToken)
	}
}

// TestOrdersNeedTheToken: without it, nothing reaches the Admin API.
func TestOrdersNeedTheToken(t *testing.T) {
	t.Parallel()
	const body = `{"order":"rebalance"}`
	operator := &fakeOperator{token: testToken}
	c, log := open(t, Config{Operator: operator})
	for name, headers := range map[string][]string{
		"none":          {"Content-Type", "application/json"},
		"empty":         {"Authorization", "Bearer "},
		"another":       {"Authorization", "Bearer of-somebody-else"},
		"another kind":  {"Authorization", "Basic " + testToken},
		"much too long": {"Authorization", "Bearer " + strings.Repeat("x", maxTokenBytes+1)},
		"a cookie":      {"Cookie", "token=" + testToken},
	} {
		got := ask(c, http.MethodPost, toOrders, body, append(headers, "Content-Type", "application/json")...)
		require.Equal(t, http.StatusUnauthorized, got.Code, name)
		require.Equal(t, "unauthorized", code(t, got))
		require.NotEmpty(t, got.Header().Get("WWW-Authenticate"))
	}
	require.Empty(t, operator.asked)
	require.Equal(t, 1, strings.Count(log.String(), "wrong token"), "guesses do not flood the log")

	got := give(c, testToken, `{"order":"check"}`)
	require.JSONEq(t, `{"done":true}`, got.Body.String())
	require.Equal(t, []string{"GET /status"}, operator.asked)
}

func TestOrdersFromElsewhere(t *testing.T) {
	t.Parallel()
	const body = `{"order":"rebalance"}`
	operator := &fakeOperator{token: testToken}
	c, _ := open(t, Config{Operator: operator})
	require.Equal(t, "origin_not_allowed", code(t, give(c, testToken, body, "Sec-Fetch-Site", "cross-site")))
	require.Equal(t, "origin_not_allowed", code(t, give(c, testToken, body, "Origin", "https://evil.example")))
	require.Equal(t, "unsupported_media_type", code(t, give(c, testToken, body, "Content-Type", "text/plain")))
	require.Equal(t, "unsupported_media_type", code(t, give(c, testToken, body, "Content-Type", "application/x-www-form-urlencoded")))
	require.Equal(t, "payload_too_large", code(t, give(c, testToken, `{"order":"`+strings.Repeat("x", maxOrderBytes)+`"}`)))
	require.Empty(t, operator.asked)

	readOnly, _ := open(t, Config{})
	got := give(readOnly, testToken, body)
	require.Equal(t, http.StatusForbidden, got.Code)
	require.Equal(t, "read_only", code(t, got))
}

func TestOrdersThatFail(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"refused":           {&Refusal{Status: 409, Code: "draining", Message: "Another node is drained."}, 409, "draining"},
		"refused strangely": {&Refusal{Status: 200, Code: "odd", Message: "Odd."}, 503, "control_unavailable"},
		"token revoked":     {ErrToken, 401, "unauthorized"},
		"not let":           {ErrForbidden, 403, "read_only"},
		"nobody there":      {errors.New("10.9.8.7:4100: connection refused"), 503, "control_unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := open(t, Config{Operator: &fakeOperator{token: testToken, err: row.err}})
			got := give(c, testToken, `{"order":"rebalance"}`)
			require.Equal(t, row.status, got.Code)
			require.Equal(t, row.code, code(t, got))
			require.NotContains(t, got.Body.String(), "10.9.8.7")
		})
	}
}

func TestTooManyOrders(t *testing.T) {
	t.Parallel()
	operator := &fakeOperator{token: "another", block: make(chan struct{}), taken: make(chan struct{})}
	c, _ := open(t, Config{Operator: operator})
	done := make(chan *httptest.ResponseRecorder, maxOrders)
	for range maxOrders {
		go func() { done <- give(c, testToken, `{"order":"rebalance"}`) }()
		<-operator.taken
	}
	require.Equal(t, "overloaded", code(t, give(c, testToken, `{"order":"rebalance"}`)))
	close(operator.block)
	for range maxOrders {
		require.Equal(t, http.StatusUnauthorized, (<-done).Code)
	}
}

// FuzzOrder: whatever is sent, one of a few requests is made, or none.
func FuzzOrder(f *testing.F) {
	for _, seed := range []string{
		`{"order":"drain","node":"d1"}`, `{"order":"drain","node":"../../x"}`, `{"order":"undrain","node":"."}`, `{"order":"rebalance","dry_run":true}`,
		`{"order":"transfer_leader","group":3,"node":"d1"}`, `{"order":"abort","move":3}`, `{"order":"check"}`, `{"order":"drain","node":"\u0000\r\n%2f"}`,
	} {
		f.Add(seed)
	}
	allowed := regexp.MustCompile(`^(GET /status|POST /nodes/[^/?#\s]+/(drain|undrain)|POST /rebalance|DELETE /rebalance|` +
		`POST /groups/\d{1,3}/transfer-leader|DELETE /moves/\d+)$`)
	f.Fuzz(func(t *testing.T, text string) {
		var o order
		if json.Unmarshal([]byte(text), &o) != nil {
			return
		}
		asked, err := o.translate()
		if err != nil {
			require.Nil(t, asked)
			return
		}
		require.Regexp(t, allowed, asked.method+" "+asked.path)
		r, err := http.NewRequest(asked.method, "http://localhost/base"+asked.path, nil)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(r.URL.EscapedPath(), "/base/"))
		if asked.body != nil {
			require.True(t, json.Valid(asked.body))
		}
	})
}
