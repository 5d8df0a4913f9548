// Package readme runs what README.md tells people to type, against a fresh
// server, so that the first thing they try works. In the Markdown, HTML
// comments say what to run and what must come of it:
//
//	<!-- test:quickstart -->      the fenced bash block that follows is run
//	<!-- expect: substring -->    after a block: its output must contain this
//	<!-- test:restart -->         the server is killed and started again
//
// Blocks run in order against one server; http://localhost:4000 and
// http://127.0.0.1:4000 in them stand for it.
package readme
