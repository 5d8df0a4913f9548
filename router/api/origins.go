package api

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// origins decides which web pages may use the API from a browser. Requests
// without an Origin, which is all that do not come from one, are not its
// business.
//
// Always allowed are pages of the same host, and pages of this machine when the
// server is addressed as this machine too: a development server on another port
// works, while a page that somebody opens from their own machine cannot reach a
// server that has a name.
type origins struct {
	any     bool
	allowed []originPattern
}

// originPattern is scheme://host, scheme://host:port, with *. in front of the
// host for all names below it, and * as port for every port.
type originPattern struct {
	scheme, host, port string
	below              bool
}

func parseOrigins(list []string) (*origins, error) {
	o := &origins{}
	var errs []error
	for _, text := range list {
		if text == "*" {
			o.any = true
			continue
		}
		p, ok := parseOriginPattern(text)
		if !ok {
			errs = append(errs, fmt.Errorf("origin %q: want *, or SCHEME://HOST with an optional :PORT, where HOST may begin with *. and PORT may be *", text))
			continue
		}
		o.allowed = append(o.allowed, p)
	}
	return o, errors.Join(errs...)
}

func parseOriginPattern(text string) (p originPattern, ok bool) {
	scheme, rest, ok := strings.Cut(strings.ToLower(text), "://")
	if !ok || scheme != "http" && scheme != "https" {
		return p, false
	}
	host, port := rest, ""
	if at := strings.LastIndexByte(rest, ':'); at >= 0 && !strings.HasSuffix(rest, "]") {
		host, port = rest[:at], rest[at+1:]
		if port == "" || port != "*" && strings.Trim(port, "0123456789") != "" {
			return p, false
		}
	}
	host, below := strings.CutPrefix(host, "*.")
	if host == "" || strings.ContainsAny(host, "*/?#@ ,") {
		return p, false
	}
	return originPattern{scheme: scheme, host: host, port: standardPort(scheme, port), below: below}, true
}

func standardPort(scheme, port string) string {
	if port != "" {
		return port
	}
	if scheme == "https" {
		return "443"
	}
	return "80"
}

func (p *originPattern) matches(scheme, host, port string) bool {
	if p.scheme != scheme || p.port != "*" && p.port != port {
		return false
	}
	if p.below {
		return strings.HasSuffix(host, "."+p.host)
	}
	return host == p.host
}

// allows decides about a page of the origin, for a request to host, which is the
// Host header.
func (o *origins) allows(origin, host string) bool {
	if o.any {
		return true
	}
	u, err := url.Parse(strings.ToLower(origin))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Scheme+"://"+u.Host != strings.ToLower(origin) {
		return false // "null" among them
	}
	if u.Host != "" && strings.EqualFold(u.Host, host) || isLoopback(u.Hostname()) && isLoopback(hostname(host)) {
		return true
	}
	name := u.Hostname()
	if strings.IndexByte(name, ':') >= 0 {
		name = "[" + name + "]"
	}
	for i := range o.allowed {
		if o.allowed[i].matches(u.Scheme, name, standardPort(u.Scheme, u.Port())) {
			return true
		}
	}
	return false
}

func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// Headers of CORS, which all answers share.
var (
	corsMethods = []string{"GET, HEAD, POST, PUT, DELETE"}
	corsHeaders = []string{"Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, X-Fastpaca-Min-Seq, X-Request-Id"}
	corsExposed = []string{"Retry-After, X-Fastpaca-Last-Seq, X-Request-Id"}
	corsMaxAge  = []string{"7200"}
	varyOrigin  = []string{"Origin"}
)

// share gives a request from a web page the headers that let the page read the
// answer, if its origin is allowed, and reports whether it is. A page that is
// not allowed still gets an answer, which its browser keeps from it; a stream is
// refused, because nothing of a WebSocket is kept from a page.
func (a *API) share(x *exchange, r *http.Request) (allowed bool) {
	origin := r.Header["Origin"]
	if len(origin) == 0 {
		return true
	}
	h := x.Header()
	h["Vary"] = varyOrigin
	if len(origin) > 1 || !a.origins.allows(origin[0], r.Host) {
		return false
	}
	h["Access-Control-Allow-Origin"] = origin
	h["Access-Control-Expose-Headers"] = corsExposed
	return true
}

// preflight answers the question of a browser whether a page may send a request,
// and reports whether the request was one.
func (a *API) preflight(x *exchange, r *http.Request) bool {
	if r.Method != http.MethodOptions || len(r.Header["Origin"]) == 0 || len(r.Header["Access-Control-Request-Method"]) == 0 {
		return false
	}
	if !a.share(x, r) {
		x.fail(&failure{kind: kindOrigin})
		return true
	}
	h := x.Header()
	h["Access-Control-Allow-Methods"] = corsMethods
	h["Access-Control-Allow-Headers"] = corsHeaders
	h["Access-Control-Max-Age"] = corsMaxAge
	x.WriteHeader(http.StatusNoContent)
	return true
}
