package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

var (
	//go:embed docs/index.html
	docsPage []byte
	//go:embed docs/start.js
	docsStart []byte
	//go:embed docs/rapidoc-min.js.gz
	docsScriptPacked []byte
)

// docsPolicy keeps the page to this server: nothing is fetched from, or sent
// to, anywhere else.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// routeDocs routes the interactive documentation, which is embedded whole.
func (a *API) routeDocs() {
	a.mux.Get("/docs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", docsPolicy)
		serveAsset(w, r, "text/html; charset=utf-8", docsPage)
	})
	a.mux.Get("/docs/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "../docs", http.StatusMovedPermanently)
	})
	a.mux.Get("/docs/start.js", func(w http.ResponseWriter, r *http.Request) {
		serveAsset(w, r, "text/javascript; charset=utf-8", docsStart)
	})
	a.mux.Get("/docs/rapidoc-min.js", func(w http.ResponseWriter, r *http.Request) {
		content := docsScriptPacked
		w.Header().Set("Vary", "Accept-Encoding")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
		} else {
			unpacked, err := unpack(docsScriptPacked)
			if err != nil {
				w.(*exchange).fail(&failure{kind: kindInternal, cause: err})
				return
			}
			content = unpacked
		}
		serveAsset(w, r, "text/javascript; charset=utf-8", content)
	})
}

// serveAsset serves a file that changes with the program only.
func serveAsset(w http.ResponseWriter, r *http.Request, contentType string, content []byte) {
	sum := sha256.Sum256(content)
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", `"`+hex.EncodeToString(sum[:12])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

func unpack(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack embedded script: %w", err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("unpack embedded script: %w", err)
	}
	return content, nil
}
