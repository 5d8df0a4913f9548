package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseAck(t *testing.T) {
	t.Parallel()
	seq, err := parseAck([]byte(`{"seq":42,"version":7,"token_count":1}`))
	require.NoError(t, err)
	require.EqualValues(t, 42, seq)
	for _, answer := range []string{"", `{"version":7}`, `{"seq":}`} {
		_, err := parseAck([]byte(answer))
		require.Error(t, err, answer)
	}
}

func TestCompareDelivery(t *testing.T) {
	t.Parallel()
	arrivals := newArrivals(2)
	base := time.Now()
	at := func(n int) time.Time { return base.Add(time.Duration(n) * time.Millisecond) }
	arrivals.of[0].at = []time.Time{at(3), at(9)}
	arrivals.of[1].at = []time.Time{at(8)}
	run, err := compareDelivery([]sent{
		{conversation: 0, seq: 1, at: at(0), acked: at(4), counts: true},
		{conversation: 0, seq: 2, at: at(5), acked: at(7)}, // of the warm-up
		{conversation: 1, seq: 1, at: at(5), acked: at(7), counts: true},
	}, arrivals)
	require.NoError(t, err)
	require.Equal(t, deliveryRun{Appends: 2, AckP50: 4, AckP99: 4, DeliveryP50: 3, DeliveryP99: 3, AfterAckP99: 1, DeliveredFirst: 50}, run)

	_, err = compareDelivery([]sent{{conversation: 1, seq: 2, counts: true}}, arrivals)
	require.ErrorContains(t, err, "not delivered")
	_, err = compareDelivery(nil, arrivals)
	require.Error(t, err)
}

func TestRuntimeFigure(t *testing.T) {
	t.Parallel()
	text := []byte("heap profile: 1: 2 [3: 4] @ heap/1\n# HeapInuse = 4096\n# Stack = 8192 / 16384\n")
	require.EqualValues(t, 4096, runtimeFigure(text, "HeapInuse"))
	require.EqualValues(t, 8192, runtimeFigure(text, "Stack"))
	require.Zero(t, runtimeFigure(text, "Nothing"))
}

// history serves archived messages in pages of 10, one of them spoiled.
func history(bodies texts, conversation, each, spoiled int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _ := strconv.Atoi(r.FormValue("from"))
		var messages []string
		for seq := from; seq <= each && seq < from+10; seq++ {
			parts := string(appendArchivedParts(nil, conversation, seq, bodies))
			if seq == spoiled {
				parts = strings.Replace(parts, ".50e+1", "5", 1)
			}
			messages = append(messages, `{"seq":`+strconv.Itoa(seq)+`,"role":"user","parts":`+parts+`,"metadata":{}}`)
		}
		_, _ = w.Write([]byte(`{"messages":[` + strings.Join(messages, ",") + `]}`))
	})
}

func TestCompareSeesWhatDiffers(t *testing.T) {
	t.Parallel()
	bodies := newTexts(30)
	server := httptest.NewServer(history(bodies, 3, 25, 17))
	t.Cleanup(server.Close)
	w, err := dialWire(t.Context(), strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, err)
	t.Cleanup(w.close)
	differing, err := compare(t.Context(), w, 3, 16, bodies)
	require.NoError(t, err)
	require.Equal(t, 1, differing, "the page goes on to the spoiled one")
	_, err = compare(t.Context(), w, 3, 26, bodies)
	require.ErrorContains(t, err, "ends at 25")
}

func TestArchivedBatchIsJSON(t *testing.T) {
	t.Parallel()
	bodies := newTexts(30)
	var batch struct {
		Messages []struct{ Parts json.RawMessage }
	}
	require.NoError(t, json.Unmarshal(appendArchivedBatch(nil, 3, 26, bodies), &batch))
	require.Len(t, batch.Messages, loadBatch)
	require.Equal(t, string(appendArchivedParts(nil, 3, 27, bodies)), string(batch.Messages[1].Parts))
}

func TestWriteAheadLogs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, size := range map[string]int{"000001.log": 100, "000002.sst": 1000, "deep/000003.log": 10} {
		name = filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, make([]byte, size), 0o644))
	}
	require.EqualValues(t, 110, writeAheadLogs(dir))
	require.EqualValues(t, 1110, diskUsage(dir))
}

func TestReportOfStreams(t *testing.T) {
	t.Parallel()
	var r report
	r.Delivery = []deliveryRun{{AckP50: 1.25}}
	r.Subscriptions = []subscriptionResult{{Transport: "SSE", KBEach: 12.5}}
	r.Fanout = []fanoutRun{{Batch: 20, FramesPerCore: 123456}}
	r.Replay = []replayRun{{Transport: "WebSocket", PerCore: 654321}}
	r.Archive = &archiveResult{CaughtUpSeconds: 3.5}
	r.Trim = &trimResult{Messages: 777}
	var out strings.Builder
	require.NoError(t, r.print(&out))
	for _, want := range []string{"1.25", "12.5", "123456", "654321", "3.5 s", "777"} {
		require.Contains(t, out.String(), want)
	}
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(text), `"frames_per_second_and_core":123456`)
}
