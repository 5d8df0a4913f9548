package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The two generated files that name every service of AWS, and through which all
// of them are linked.
const (
	servicesFile = "internal/provider/sdkv2/service_packages_gen.go"
	clientsFile  = "internal/conns/awsclient_gen.go"
)

// trim lays out a copy of the provider below work with shortened versions of the
// two files, and returns it: the module cache is read-only, and the go command
// refuses to overlay files in it. What is left is the provider as it is, with
// fewer resource types.
func (b *builder) trim(ctx context.Context, p pin, source, work string) (trimmed string, err error) {
	services, err := os.ReadFile(filepath.Join(source, servicesFile))
	if err != nil {
		return "", err
	}
	if services, err = keepServices(services, p.Services); err != nil {
		return "", err
	}
	clients, err := os.ReadFile(filepath.Join(source, clientsFile))
	if err != nil {
		return "", err
	}
	none, err := keepClients(clients, nil)
	if err != nil {
		return "", err
	}
	trimmed = filepath.Join(work, "source")
	if err := layOut(source, trimmed); err != nil {
		return "", err
	}
	if err := errors.Join(put(trimmed, servicesFile, services), put(trimmed, clientsFile, none)); err != nil {
		return "", err
	}
	// Without a single client nothing would compile, but what is imported can be
	// listed; so only what is needed is ever downloaded.
	used, err := b.clientsUsed(ctx, trimmed)
	if err != nil {
		return "", err
	}
	if clients, err = keepClients(clients, used); err != nil {
		return "", err
	}
	return trimmed, put(trimmed, clientsFile, clients)
}

// put writes a file anew, so that one that was linked stays as it is.
func put(dir, name string, content []byte) error {
	file := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.Remove(file); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}

// unbuilt are folders of a provider that no build reads, and much of its size.
var unbuilt = []string{"docs", "examples", "testdata", "website"}

// layOut links, or copies where it cannot, what is needed to build from one
// directory into another, which is made.
func layOut(from, to string) error {
	return filepath.WalkDir(from, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case entry.IsDir() && name != "." && (slices.Contains(unbuilt, entry.Name()) || strings.HasPrefix(entry.Name(), ".")):
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case !entry.Type().IsRegular() || strings.HasSuffix(name, "_test.go"):
			return nil
		case os.Link(file, target) == nil:
			return nil
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o644)
	})
}

// clientsUsed returns the names of all methods called in the packages that are
// left, a superset of the clients they need.
func (b *builder) clientsUsed(ctx context.Context, source string) (map[string]bool, error) {
	out, err := b.goCommand(ctx, source, "list", "-deps",
		"-f", `{{if .Module}}{{if .Module.Main}}{{$dir := .Dir}}{{range .GoFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}{{end}}{{end}}`, ".")
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for file := range strings.Lines(string(out)) {
		file = strings.TrimSpace(file)
		if file == "" || strings.HasSuffix(filepath.ToSlash(file), clientsFile) {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				used[s.Sel.Name] = true
			}
			return true
		})
	}
	return used, nil
}

// keepServices drops all service packages but the wanted ones.
func keepServices(src []byte, wanted []string) ([]byte, error) {
	return rewrite(src, func(file *ast.File) error {
		kept := 0
		ast.Inspect(file, func(n ast.Node) bool {
			list, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			list.Elts = slices.DeleteFunc(list.Elts, func(e ast.Expr) bool { return !slices.Contains(wanted, receiverOfCall(e)) })
			kept += len(list.Elts)
			return false
		})
		if kept != len(wanted) {
			return fmt.Errorf("%s lists %d of the %d wanted services %v", servicesFile, kept, len(wanted), wanted)
		}
		return nil
	})
}

// receiverOfCall is x of x.F(…).
func receiverOfCall(e ast.Expr) string {
	if call, ok := e.(*ast.CallExpr); ok {
		if s, ok := call.Fun.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok {
				return x.Name
			}
		}
	}
	return ""
}

// keepClients drops all methods but the used ones.
func keepClients(src []byte, used map[string]bool) ([]byte, error) {
	return rewrite(src, func(file *ast.File) error {
		file.Decls = slices.DeleteFunc(file.Decls, func(d ast.Decl) bool {
			f, ok := d.(*ast.FuncDecl)
			return ok && !used[f.Name.Name]
		})
		return nil
	})
}

// rewrite changes a file and drops the imports that it no longer uses. Comments
// go: they would end up beside other code.
func rewrite(src []byte, change func(*ast.File) error) ([]byte, error) {
	positions := token.NewFileSet()
	file, err := parser.ParseFile(positions, "", src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	if err := change(file); err != nil {
		return nil, err
	}
	used := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok {
				used[x.Name] = true
			}
		}
		return true
	})
	file.Decls = slices.DeleteFunc(file.Decls, func(d ast.Decl) bool {
		imports, ok := d.(*ast.GenDecl)
		if !ok || imports.Tok != token.IMPORT {
			return false
		}
		imports.Specs = slices.DeleteFunc(imports.Specs, func(s ast.Spec) bool { return !used[importName(s.(*ast.ImportSpec))] })
		return len(imports.Specs) == 0
	})
	var out bytes.Buffer
	if err := format.Node(&out, positions, file); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// importName is the name a file uses for an import.
func importName(s *ast.ImportSpec) string {
	if s.Name != nil {
		return s.Name.Name
	}
	full, err := strconv.Unquote(s.Path.Value)
	if err != nil {
		return ""
	}
	return path.Base(full)
}
