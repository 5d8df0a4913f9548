// Package api is the public HTTP surface: it parses requests, calls the data
// plane through rpc.Node, and writes answers.
//
// Huma and chi stay inside this package. Every endpoint is an operation that is
// declared once and yields its route, its limits and its part of the OpenAPI
// document; Document renders that document without a running server. Handlers
// use Huma's adapter and not its typed inputs, so that no request pays for
// reflection and every failure leaves through one table, in errors.go.
package api
