#!/usr/bin/env bash
# Generates the Go code of every .proto beside this script. Needs protoc; its
# plugins are tools of the module, so their versions are those of go.mod. With
# an argument the code goes to that directory instead (for a check that the
# committed code is current).
set -euo pipefail
cd "$(dirname "$0")"
here=$(pwd)
root=$(cd "$(dirname "$(go env GOMOD)")" && pwd)
out=${1:-$root}
plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT
go build -o "$plugins/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
cd "$root"
# The path from the module root keeps the registered file name unique.
PATH="$plugins:$PATH" protoc \
  --go_out="$out" --go_opt=paths=source_relative \
  --go-grpc_out="$out" --go-grpc_opt=paths=source_relative \
  "${here#"$root"/}"/*.proto
