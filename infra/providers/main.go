// Command providers builds the Terraform providers that infra is checked with,
// from the Go module proxy, into a directory that Terraform takes as a mirror.
// With it, `terraform init`, `validate`, `test` and an offline `plan` need no
// registry. What is there already is left alone.
//
//	go run ./infra/providers -mirror DIR        # prints the configuration to use
//	go run ./infra/providers -mirror DIR -check # exits 1 if something is missing
//
// The programs are test tools: they are built where they are used and are no
// part of anything that is shipped.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "providers: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("providers", flag.ContinueOnError)
	mirror := flags.String("mirror", "", "`DIR` to build into")
	check := flags.Bool("check", false, "build nothing, only say what is missing")
	parallel := flags.Int("p", runtime.NumCPU(), "compile `N` packages at a time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *mirror == "" || flags.NArg() > 0 {
		return errors.New("usage: providers -mirror DIR [-check] [-p N]")
	}
	dir, err := filepath.Abs(*mirror)
	if err != nil {
		return err
	}
	b := builder{mirror: dir, parallel: *parallel, log: stderr}
	for _, p := range pins {
		if b.built(p) {
			continue
		}
		if *check {
			return fmt.Errorf("%s %s is not built yet; run without -check", p.Source, p.Version)
		}
		if err := b.build(ctx, p); err != nil {
			return fmt.Errorf("%s %s: %w", p.Source, p.Version, err)
		}
	}
	file, err := b.writeConfig()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, file)
	return err
}

// builder makes a mirror.
type builder struct {
	mirror   string
	parallel int
	log      io.Writer
}

// path is where Terraform looks for an unpacked provider.
func (b *builder) path(p pin) string {
	name := "terraform-provider-" + path.Base(p.Source) + "_v" + p.Version
	return filepath.Join(b.mirror, registry, filepath.FromSlash(p.Source), p.Version, runtime.GOOS+"_"+runtime.GOARCH, name)
}

// stamp is where it is kept what a trimmed provider was trimmed to: the version
// does not say.
func (b *builder) stamp(p pin) string {
	return filepath.Join(b.mirror, ".services-"+path.Base(p.Source)+"-"+p.Version)
}

func (b *builder) built(p pin) bool {
	info, err := os.Stat(b.path(p))
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	if len(p.Services) == 0 {
		return true
	}
	kept, err := os.ReadFile(b.stamp(p))
	return err == nil && string(kept) == services(p)
}

func services(p pin) string { return strings.Join(p.Services, "\n") + "\n" }

// build compiles one provider. Its binary appears whole or not at all.
func (b *builder) build(ctx context.Context, p pin) error {
	fmt.Fprintf(b.log, "== building the provider %s %s\n", p.Source, p.Version)
	source, err := b.download(ctx, p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.mirror, 0o755); err != nil {
		return err
	}
	// Near what is kept, where links from the module cache more often work.
	work, err := os.MkdirTemp(b.mirror, ".build-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	args := []string{"build", "-p", strconv.Itoa(b.parallel), "-trimpath", "-buildvcs=false", "-ldflags", "-s -w"}
	if len(p.Services) > 0 {
		if source, err = b.trim(ctx, p, source, work); err != nil {
			return err
		}
	}
	target := b.path(p)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	// Terraform must not find a half-written one: built beside, then renamed.
	partial := filepath.Join(filepath.Dir(filepath.Dir(target)), "."+filepath.Base(target)+".part")
	defer func() { _ = os.Remove(partial) }()
	if _, err := b.goCommand(ctx, source, append(args, "-o", partial, ".")...); err != nil {
		return err
	}
	if err := os.Rename(partial, target); err != nil || len(p.Services) == 0 {
		return err
	}
	return os.WriteFile(b.stamp(p), []byte(services(p)), 0o644)
}

// download returns the directory of a provider's source.
func (b *builder) download(ctx context.Context, p pin) (string, error) {
	// Outside of any module, so that none of ours decides a version.
	out, err := b.goCommand(ctx, os.TempDir(), "mod", "download", "-json", p.Module+"@"+p.Query)
	if err != nil {
		return "", err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", fmt.Errorf("answer of go mod download: %w", err)
	}
	return module.Dir, nil
}

// goCommand runs the go command in dir and returns what it prints.
func (b *builder) goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		const most = 4 << 10
		said := stderr.Bytes()
		if len(said) > most {
			said = said[len(said)-most:]
		}
		return nil, fmt.Errorf("go %s: %w\n%s%s", args[0], err, said, stdout.Bytes()[:min(stdout.Len(), most)])
	}
	return stdout.Bytes(), nil
}

// writeConfig writes the configuration that makes Terraform use the mirror, and
// nothing else, and returns its path.
func (b *builder) writeConfig() (string, error) {
	file := filepath.Join(b.mirror, "terraform.rc")
	content := fmt.Sprintf("disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", b.mirror)
	return file, os.WriteFile(file, []byte(content), 0o644)
}
