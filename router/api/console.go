package api

import "net/http"

// routeConsole routes the web console, which serves itself. Unlike the API it is
// for its own page only: no other may read what it answers, whatever
// Config.AllowedOrigins says.
func (a *API) routeConsole(console http.Handler) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Del("Access-Control-Allow-Origin")
		h.Del("Access-Control-Expose-Headers")
		console.ServeHTTP(w, r)
	}
	a.mux.HandleFunc("/console", serve)
	a.mux.HandleFunc("/console/*", serve)
}
