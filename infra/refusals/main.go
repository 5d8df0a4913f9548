// Command refusals checks what a user reads when a Terraform module refuses bad
// input. A run of `terraform test` that expects a failure only says which
// variable or precondition failed; this runs the same cases without expecting
// it, and compares what is printed with the sentence that the case names:
//
//	run "no_data_node" {
//	  # says: Messages live on data nodes, so there must be one
//	  expect_failures = [var.data_nodes]
//	  …
//	}
//
// A case that expects a failure and names no sentence is an error.
//
//	go run ./infra/refusals -terraform terraform -root infra docker aws
//
// The modules are copied; nothing is written into the tree. Providers come from
// where the caller's TF_CLI_CONFIG_FILE says.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "refusals: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("refusals", flag.ContinueOnError)
	terraform := flags.String("terraform", "terraform", "`PROGRAM` to test with")
	root := flags.String("root", "infra", "`DIR` that holds modules/")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("usage: refusals [-terraform PROGRAM] [-root DIR] MODULE…")
	}
	work, err := os.MkdirTemp("", "refusals-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	// Modules read files beside them.
	for _, dir := range []string{"modules", "observability"} {
		if err := os.CopyFS(filepath.Join(work, dir), os.DirFS(filepath.Join(*root, dir))); err != nil {
			return err
		}
	}
	modules := flags.Args()
	refused, errs := make([]int, len(modules)), make([]error, len(modules))
	var checking sync.WaitGroup
	for i, module := range modules {
		checking.Go(func() {
			if refused[i], errs[i] = check(ctx, *terraform, filepath.Join(work, "modules", module)); errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", module, errs[i])
			}
		})
	}
	checking.Wait()
	for i, module := range modules {
		if errs[i] == nil {
			_, errs[i] = fmt.Fprintf(stdout, "%s/modules/%s: %d refusals, each with its sentence\n", *root, module, refused[i])
		}
	}
	return errors.Join(errs...)
}

// check runs the refused cases of a copied module and returns how many there
// are.
func check(ctx context.Context, terraform, module string) (int, error) {
	cases, err := load(filepath.Join(module, "tests"))
	if err != nil {
		return 0, err
	}
	if len(cases) == 0 {
		return 0, errors.New("no case expects a failure")
	}
	// A failed run ends its file: each gets one of its own, in place of those
	// that are there.
	tests := filepath.Join(module, "tests")
	if err := os.RemoveAll(tests); err != nil {
		return 0, err
	}
	if err := os.Mkdir(tests, 0o755); err != nil {
		return 0, err
	}
	for i, c := range cases {
		name := fmt.Sprintf("%03d_%s.tftest.hcl", i, c.name)
		if err := os.WriteFile(filepath.Join(tests, name), []byte(c.source), 0o644); err != nil {
			return 0, err
		}
	}
	if _, err := output(ctx, terraform, module, "init", "-backend=false", "-input=false", "-no-color"); err != nil {
		return 0, err
	}
	// It fails, for every case does.
	said, err := output(ctx, terraform, module, "test", "-json")
	if err == nil {
		return 0, errors.New("nothing was refused")
	}
	if len(said) == 0 {
		return 0, err
	}
	found, err := diagnostics(said)
	if err != nil {
		return 0, err
	}
	return len(cases), compare(cases, found)
}

// output runs Terraform in a module. Its error holds the end of what was printed.
func output(ctx context.Context, terraform, module string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, terraform, append([]string{"-chdir=" + module}, args...)...)
	cmd.Env = append(os.Environ(), "TF_IN_AUTOMATION=1", "TF_DATA_DIR="+filepath.Join(module, ".terraform"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		const most = 4 << 10
		text := append(stdout.Bytes()[max(0, stdout.Len()-most):], stderr.Bytes()[max(0, stderr.Len()-most):]...)
		return stdout.Bytes(), fmt.Errorf("terraform %s: %w\n%s", args[0], err, text)
	}
	return stdout.Bytes(), nil
}
