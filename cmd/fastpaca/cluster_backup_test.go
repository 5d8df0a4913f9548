package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/admin"
	"github.com/fastpaca/fastpaca/dataplane/backup"
)

// What `fastpaca serve` holds can be backed up and put back as well.
func TestClusterBackup(t *testing.T) {
	address := startCluster(t)
	require.Eventually(t, func() bool {
		code, stdout, _ := cluster(t, address, "status", "-o", "json")
		var status statusAnswer
		return code == exitOK && json.Unmarshal([]byte(stdout), &status) == nil && status.Healthy
	}, 30*time.Second, 50*time.Millisecond)
	dir := filepath.Join(t.TempDir(), "backup")
	code, stdout, stderr := cluster(t, address, "backup", dir)
	require.Equal(t, exitOK, code, stderr)
	require.Contains(t, stdout, "Backed up 0 conversations, 0 messages")
	require.Contains(t, stderr, "copied 256 of 256 groups")
	code, _, stderr = cluster(t, address, "backup", dir)
	require.Equal(t, exitRefused, code)
	require.Contains(t, stderr, "is not empty")
	code, stdout, stderr = cluster(t, address, "restore", dir, "--yes", "-o", "json")
	require.Equal(t, exitOK, code, stderr)
	var result backup.Result
	require.NoError(t, json.Unmarshal([]byte(stdout), &result))
	require.Equal(t, 256, result.Equal)
	for _, verb := range []string{"backup", "restore"} {
		code, _, stderr = cluster(t, address, verb)
		require.Equal(t, exitUsage, code, stderr)
		code, stdout, _ = cluster(t, address, verb, "--help")
		require.Equal(t, exitOK, code)
		require.Contains(t, stdout, "fastpaca cluster "+verb+" /backups/monday")
	}
}

func TestRestoreWantsOneVersion(t *testing.T) {
	t.Parallel()
	nodes := []admin.Node{{Version: "1"}, {Version: "1"}, {Version: "0", State: "removed"}}
	require.NoError(t, sameVersions(nodes))
	require.ErrorContains(t, sameVersions(append(nodes, admin.Node{Version: "2"})), "(1, 2)")
}

func TestBackupErrors(t *testing.T) {
	t.Parallel()
	o := &operator{ctx: t.Context()}
	var coded exitError
	require.ErrorAs(t, o.backupError(backup.ErrNotEmpty, "nothing"), &coded)
	require.Equal(t, exitRefused, coded.code)
	require.ErrorAs(t, o.backupError(errors.New("broken"), "nothing was changed"), &coded)
	require.Equal(t, exitFailed, coded.code)
	require.ErrorContains(t, coded, "nothing was changed")
}
