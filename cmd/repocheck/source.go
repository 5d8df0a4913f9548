package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// modulePath is this module; a package of it is modulePath/dir.
const modulePath = "github.com/fastpaca/fastpaca"

// repository is what rules look at.
type repository struct {
	paths []string          // all files, slash-separated
	texts map[string][]byte // those that are text
	code  []source
}

// source is one Go file.
type source struct {
	path, dir string
	test      bool
	generated bool
	file      *ast.File
	positions *token.FileSet
}

// imported is one import of a file.
type imported struct {
	path string
	line int
}

func (s source) line(pos token.Pos) int { return s.positions.Position(pos).Line }

// lines returns the number of lines of the file.
func (s source) lines() int { return s.line(s.file.FileEnd) }

func (s source) imports() []imported {
	var out []imported
	for _, spec := range s.file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // it would not compile
		}
		out = append(out, imported{name, s.line(spec.Pos())})
	}
	return out
}

// local returns the directory of an import of this module.
func (i imported) local() (string, bool) {
	return strings.CutPrefix(i.path, modulePath+"/")
}

// load reads files and parses those that are Go.
func load(files fs.FS, paths []string) (repository, error) {
	repo := repository{paths: paths, texts: map[string][]byte{}}
	for _, p := range paths {
		content, err := fs.ReadFile(files, p)
		if err != nil {
			return repository{}, err
		}
		if bytes.IndexByte(content, 0) >= 0 {
			continue // not text
		}
		repo.texts[p] = content
		if !strings.HasSuffix(p, ".go") {
			continue
		}
		positions := token.NewFileSet()
		file, err := parser.ParseFile(positions, p, content, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return repository{}, fmt.Errorf("parse: %w", err)
		}
		repo.code = append(repo.code, source{
			path: p, dir: path.Dir(p),
			test:      strings.HasSuffix(p, "_test.go"),
			generated: ast.IsGenerated(file),
			file:      file, positions: positions,
		})
	}
	return repo, nil
}

// packageNames maps the names that a file uses for packages to their paths.
func (s source) packageNames() map[string]string {
	names := map[string]string{}
	for i, spec := range s.file.Imports {
		full := s.imports()[i].path
		name := path.Base(full)
		if strings.HasPrefix(name, "v") && strings.Trim(name[1:], "0123456789") == "" {
			name = path.Base(path.Dir(full))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = full
	}
	return names
}

// uses calls found for every "package.Name" in the file.
func (s source) uses(found func(pkg, name string, line int)) {
	names := s.packageNames()
	ast.Inspect(s.file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if ident, ok := selector.X.(*ast.Ident); ok {
			if pkg, ok := names[ident.Name]; ok {
				found(pkg, selector.Sel.Name, s.line(selector.Pos()))
			}
		}
		return true
	})
}
