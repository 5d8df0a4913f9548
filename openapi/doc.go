// Package openapi holds the public contract as it is checked in: openapi.yaml
// and openapi.json in OpenAPI 3.1, and openapi-3.0.json for generators that want
// 3.0. The files are what a running router serves at /v1/openapi.yaml and so
// on. They are generated from the handlers in router/api; do not edit them. The
// test in this package fails when they are not current. admin.yaml and admin.json
// are the same for operators, generated from controlplane/admin.
//
// released.json is the contract as it was released last. A test fails when the
// current one would break a client made from it; tool.mod pins what compares.
package openapi

//go:generate go test -run "TestCheckedIn(Admin)?DocumentsAreCurrent" -update
