// Package contract is the REST client as it is generated from
// openapi/openapi.yaml: the models, and the requests in their exact form. The
// SDK sends them through its own retries, and reads the answers itself.
package contract

//go:generate go tool -modfile=../../tool.mod oapi-codegen -config oapi-codegen.yaml -o contract.gen.go ../../../../openapi/openapi.yaml
