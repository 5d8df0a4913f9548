// Command sbom prints the bill of materials of a Go binary, in CycloneDX 1.6 as
// JSON: every module that was linked into it, with the version and checksum the
// compiler recorded, and the standard library. The binary is all it reads, so
// the same binary gives the same bytes, and a binary from an image is described
// as well as one from a checkout.
//
//	go run ./infra/sbom bin/fastpaca >fastpaca.cdx.json
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "sbom: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: sbom BINARY")
	}
	info, err := buildinfo.ReadFile(args[0])
	if err != nil {
		return err
	}
	content, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	encoder := json.NewEncoder(stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(describe(info, hex.EncodeToString(sum[:])))
}

// bill is the part of CycloneDX that is used.
type bill struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []component `json:"components"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	PURL       string     `json:"purl"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// describe makes the bill of a binary whose SHA-256 is sum.
func describe(info *debug.BuildInfo, sum string) bill {
	main := module("application", &info.Main)
	main.Hashes = []hash{{"SHA-256", sum}}
	for _, s := range info.Settings {
		// Not those of a checkout: they are in the version where they matter.
		if !strings.HasPrefix(s.Key, "vcs") {
			main.Properties = append(main.Properties, property{"go:build:" + s.Key, s.Value})
		}
	}
	library := component{
		Type: "library", Name: "std", Version: strings.TrimPrefix(info.GoVersion, "go"),
		PURL: "pkg:golang/std@" + url.PathEscape(strings.TrimPrefix(info.GoVersion, "go")),
	}
	library.Ref = library.PURL
	components := []component{library}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		components = append(components, module("library", m))
	}
	slices.SortFunc(components, func(a, b component) int { return strings.Compare(a.PURL, b.PURL) })
	return bill{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: metadata{main}, Components: components}
}

func module(kind string, m *debug.Module) component {
	c := component{Type: kind, Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path}
	if m.Version != "" && m.Version != "(devel)" {
		c.PURL += "@" + url.PathEscape(m.Version)
	}
	c.Ref = c.PURL
	// What go.sum holds: a SHA-256 over the names and hashes of the files, which
	// is no hash of one file, so it is a property.
	if decoded, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(decoded) == sha256.Size {
		c.Properties = append(c.Properties, property{"go:sum", m.Sum})
	}
	return c
}
