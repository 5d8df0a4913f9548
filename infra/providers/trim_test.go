package main

import (
	"bytes"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

const servicesSource = `package sdkv2

import (
	"context"

	"example.com/conns"
	"example.com/service/account"
	"example.com/service/ec2"
	"example.com/service/iam"
)

func servicePackages(ctx context.Context) []conns.ServicePackage {
	v := []conns.ServicePackage{
		account.ServicePackage(ctx),
		ec2.ServicePackage(ctx),
		iam.ServicePackage(ctx),
	}
	return v
}
`

const clients = `package conns

import (
	"context"

	"example.com/service/ec2"
	iam_sdk "example.com/service/iam"
)

func (c *AWSClient) EC2Client(ctx context.Context) *ec2.Client { return must[*ec2.Client](ctx, c) }

func (c *AWSClient) IAMClient(ctx context.Context) *iam_sdk.Client { return must[*iam_sdk.Client](ctx, c) }
`

func TestKeepServices(t *testing.T) {
	t.Parallel()
	got, err := keepServices([]byte(servicesSource), []string{"ec2", "iam"})
	require.NoError(t, err)
	requireGo(t, got)
	require.NotContains(t, string(got), "account")
	require.Contains(t, string(got), `"example.com/service/ec2"`)
	require.Contains(t, string(got), "iam.ServicePackage(ctx)")
	require.Contains(t, string(got), `"example.com/conns"`)

	_, err = keepServices([]byte(servicesSource), []string{"ec2", "moved"})
	require.ErrorContains(t, err, "1 of the 2", "a service that was renamed must not go missing unnoticed")
}

func TestKeepClients(t *testing.T) {
	t.Parallel()
	got, err := keepClients([]byte(clients), map[string]bool{"IAMClient": true, "Unrelated": true})
	require.NoError(t, err)
	requireGo(t, got)
	require.NotContains(t, string(got), "ec2")
	require.Contains(t, string(got), "iam_sdk.Client")

	got, err = keepClients([]byte(clients), nil)
	require.NoError(t, err)
	requireGo(t, got)
	require.NotContains(t, string(got), "import", "nothing is left to import")

	_, err = keepClients([]byte("package"), nil)
	require.Error(t, err)
}

// A copy holds what a build reads, and changing it leaves the original alone.
func TestLayOut(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	for name, content := range map[string]string{
		"go.mod": "module x\n", "main.go": "package main\n", "main_test.go": "package main\n",
		"a/b/embedded.tmpl": "x", "website/docs/x.md": "x", ".ci/x": "x", "a/testdata/x": "x",
	} {
		file := filepath.Join(from, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o444))
	}
	require.NoError(t, layOut(from, to))
	for _, name := range []string{"go.mod", "main.go", "a/b/embedded.tmpl"} {
		require.FileExists(t, filepath.Join(to, name))
	}
	for _, name := range []string{"main_test.go", "website", ".ci", "a/testdata"} {
		require.NoFileExists(t, filepath.Join(to, name))
		require.NoDirExists(t, filepath.Join(to, name))
	}
	require.NoError(t, put(to, "main.go", []byte("package changed\n")))
	original, err := os.ReadFile(filepath.Join(from, "main.go"))
	require.NoError(t, err)
	require.Equal(t, "package main\n", string(original))
	require.Error(t, put(to, "missing.go", nil), "a file that moved must not be made up")
	require.Error(t, layOut(filepath.Join(from, "nowhere"), to))
}

func requireGo(t *testing.T, src []byte) {
	t.Helper()
	_, err := parser.ParseFile(token.NewFileSet(), "", src, parser.AllErrors)
	require.NoError(t, err, "%s", src)
}

// Nothing is built that is there, and what is missing is said.
func TestMirror(t *testing.T) {
	t.Parallel()
	mirror := t.TempDir()
	var stdout, stderr bytes.Buffer
	require.ErrorContains(t, run(t.Context(), []string{"-mirror", mirror, "-check"}, &stdout, &stderr), "not built yet")
	require.ErrorContains(t, run(t.Context(), nil, &stdout, &stderr), "usage")

	b := builder{mirror: mirror}
	for _, p := range pins {
		require.NoError(t, os.MkdirAll(filepath.Dir(b.path(p)), 0o755))
		require.NoError(t, os.WriteFile(b.path(p), []byte("binary"), 0o755))
	}
	require.ErrorContains(t, run(t.Context(), []string{"-mirror", mirror, "-check"}, &stdout, &stderr), "hashicorp/aws", "trimmed to other services")
	for _, p := range pins {
		require.NoError(t, os.WriteFile(b.stamp(p), []byte(services(p)), 0o644))
	}
	require.FileExists(t, filepath.Join(mirror, "registry.terraform.io/kreuzwerker/docker/4.6.0", runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-docker_v4.6.0"))
	require.NoError(t, run(t.Context(), []string{"-mirror", mirror}, &stdout, &stderr))
	require.Equal(t, filepath.Join(mirror, "terraform.rc")+"\n", stdout.String())
	config, err := os.ReadFile(filepath.Join(mirror, "terraform.rc"))
	require.NoError(t, err)
	require.Contains(t, string(config), mirror)
	require.Empty(t, stderr.String(), "nothing was built")
}
