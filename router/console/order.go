package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// maxOrderBytes bounds the body of an order.
	maxOrderBytes = 4 << 10
	// maxOrders bounds the orders under way.
	maxOrders = 4
	// orderTimeout bounds one.
	orderTimeout = 15 * time.Second
	// maxNodeBytes bounds the id of a node.
	maxNodeBytes = 128
	// maxTokenBytes bounds what is taken as a token.
	maxTokenBytes = 4 << 10
	// groups is how many groups there are.
	groups = 256
	// refusalEvery is how often a wrong token is logged.
	refusalEvery = time.Second
)

// order is what the page asks for.
type order struct {
	Order  string  `json:"order"`
	Node   string  `json:"node"`
	Group  *int    `json:"group"`
	Move   *uint64 `json:"move"`
	DryRun bool    `json:"dry_run"`
}

// request is an order as a request of the Admin API.
type request struct {
	method, path string
	body         []byte
}

// errOrder: the order makes no sense. Its text is for whoever gave it.
type errOrder struct{ text string }

func (e *errOrder) Error() string { return e.text }

// translate returns the one request that the order stands for. Nothing but these
// requests can be made through a console.
func (o *order) translate() (*request, error) {
	switch o.Order {
	case "check":
		return &request{method: http.MethodGet, path: "/status"}, nil
	case "drain", "undrain":
		if o.Node == "" || len(o.Node) > maxNodeBytes {
			return nil, &errOrder{"node must name a node."}
		}
		r := &request{method: http.MethodPost, path: "/nodes/" + escape(o.Node) + "/" + o.Order}
		if o.Order == "drain" {
			r.body = o.dryRun()
		}
		return r, nil
	case "rebalance":
		return &request{method: http.MethodPost, path: "/rebalance", body: o.dryRun()}, nil
	case "cancel_rebalance":
		return &request{method: http.MethodDelete, path: "/rebalance"}, nil
	case "transfer_leader":
		if o.Group == nil || *o.Group < 0 || *o.Group >= groups {
			return nil, &errOrder{fmt.Sprintf("group must be 0 to %d.", groups-1)}
		}
		if o.Node == "" || len(o.Node) > maxNodeBytes {
			return nil, &errOrder{"node must name a node."}
		}
		body, err := json.Marshal(map[string]string{"to": o.Node})
		return &request{method: http.MethodPost, path: fmt.Sprintf("/groups/%d/transfer-leader", *o.Group), body: body}, err
	case "abort":
		if o.Move == nil {
			return nil, &errOrder{"move must name a move."}
		}
		return &request{method: http.MethodDelete, path: fmt.Sprintf("/moves/%d", *o.Move)}, nil
	}
	return nil, &errOrder{"order must be check, drain, undrain, rebalance, cancel_rebalance, transfer_leader or abort."}
}

func (o *order) dryRun() []byte {
	if o.DryRun {
		return []byte(`{"dry_run":true}`)
	}
	return []byte(`{}`)
}

// escape makes a path segment that no reader takes for a path of its own.
func escape(segment string) string {
	if strings.Trim(segment, ".") == "" {
		return strings.ReplaceAll(segment, ".", "%2E")
	}
	return url.PathEscape(segment)
}

// serveOrder passes an order on, with the token that came with it.
func (c *Console) serveOrder(w http.ResponseWriter, r *http.Request) {
	if c.operator == nil {
		answerError(w, http.StatusForbidden, "read_only", "This console can only look: the cluster has no token, so nobody could prove to be its operator. Use fastpaca cluster.")
		return
	}
	// A page of another site cannot know the token. This is in case that it does.
	if err := c.sameOrigin.Check(r); err != nil {
		answerError(w, http.StatusForbidden, "origin_not_allowed", "Orders are taken from the console's own page.")
		return
	}
	token, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !given || token == "" || len(token) > maxTokenBytes {
		c.unauthorized(w)
		return
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		answerError(w, http.StatusUnsupportedMediaType, "unsupported_media_type", "An order is sent as application/json.")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOrderBytes))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		answerError(w, http.StatusRequestEntityTooLarge, "payload_too_large", "An order is shorter.")
		return
	} else if err != nil {
		return // the client is gone
	}
	var o order
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil || d.More() {
		answerError(w, http.StatusBadRequest, "invalid_json", "An order is one JSON object.")
		return
	}
	asked, err := o.translate()
	if err != nil {
		answerError(w, http.StatusUnprocessableEntity, "invalid_request", err.Error())
		return
	}
	c.pass(w, r, token, &o, asked)
}

func (c *Console) pass(w http.ResponseWriter, r *http.Request, token string, o *order, asked *request) {
	select {
	case c.orders <- struct{}{}:
		defer func() { <-c.orders }()
	default:
		w.Header().Set("Retry-After", "1")
		answerError(w, http.StatusServiceUnavailable, "overloaded", "Other orders are being passed on. This one was not.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), orderTimeout)
	defer cancel()
	answer, err := c.operator.Order(ctx, token, asked.method, asked.path, asked.body)
	refused, isRefused := errors.AsType[*Refusal](err)
	switch {
	case err == nil:
		if asked.method != http.MethodGet {
			c.log.Info("an operator gave an order", "order", o.Order, "path", asked.path, "dry_run", o.DryRun)
		}
		if o.Order == "check" {
			answer = []byte(`{"done":true}`)
		}
		answerJSON(w, http.StatusOK, answer)
	case errors.Is(err, ErrToken):
		c.unauthorized(w)
	case errors.Is(err, ErrForbidden):
		answerError(w, http.StatusForbidden, "read_only", "The certificate of this router does not let it speak for operators. Use fastpaca cluster.")
	case isRefused && refused.Status >= 400 && refused.Status < 600:
		answerError(w, refused.Status, refused.Code, refused.Message)
	default:
		c.log.Warn("an order could not be passed on", "order", o.Order, "error", err)
		answerError(w, http.StatusServiceUnavailable, "control_unavailable", "No member of the control plane answered. Look whether the order was carried out before you repeat it.")
	}
}

func (c *Console) unauthorized(w http.ResponseWriter) {
	c.refusals.log(c.log)
	w.Header().Set("WWW-Authenticate", `Bearer realm="fastpaca console"`)
	answerError(w, http.StatusUnauthorized, "unauthorized", "This needs the cluster's token.")
}
