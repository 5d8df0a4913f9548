package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "a-token-of-this-suite-0123456789"

// subject is a cluster and a page that shows its console.
type subject struct {
	*page
	cluster *cluster.Cluster
	client  *client.Client
	base    string
	appends atomic.Uint64 // of the load, acknowledged
}

func start(t *testing.T) *subject {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts a cluster and a browser (-short)")
	}
	p := openBrowser(t)
	c, err := cluster.New(cluster.Config{Dir: t.TempDir(), Token: token})
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			out := c.Routers[0].Output()
			t.Logf("end of the output of the router:\n%s", out[max(0, len(out)-2000):])
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	require.NoError(t, c.Start(ctx))
	s := &subject{page: p, cluster: c, base: c.Routers[0].URL()}
	s.client = client.New(s.base)
	t.Cleanup(s.client.Close)
	return s
}

// load appends a little all the while, until the test ends.
func (s *subject) load() {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(40 * time.Millisecond)
		defer ticker.Stop()
		for i := 0; ; i++ {
			path := client.Path(fmt.Sprintf("load-%03d", i%60))
			if i < 60 {
				_, _ = s.client.Do(ctx, http.MethodPut, path, []byte(`{}`))
			}
			body := `{"message":{"role":"user","parts":[{"type":"text","text":"one of many"}]}}`
			if got, err := s.client.Do(ctx, http.MethodPost, path+"/messages", []byte(body)); err == nil && got.Status == http.StatusCreated {
				s.appends.Add(1)
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	s.t.Cleanup(func() { cancel(); <-done })
}

func (s *subject) must(method, target, body string, status int) {
	s.t.Helper()
	var got client.Reply
	require.Eventually(s.t, func() bool {
		var err error
		got, err = s.client.Do(s.t.Context(), method, target, []byte(body))
		return err == nil && got.Status < 500
	}, patience, 50*time.Millisecond)
	require.Equal(s.t, status, got.Status, "%s", got.Body)
}

// say appends a message to a conversation. Its id makes it safe to repeat.
func (s *subject) say(conversation, id, role string, parts ...any) {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{"message": map[string]any{"id": id, "role": role, "parts": parts}})
	require.NoError(s.t, err)
	s.must(http.MethodPost, client.Path(conversation)+"/messages", string(body), http.StatusCreated)
}

func text(t string) any { return map[string]string{"type": "text", "text": t} }

// conversation is one as agents have it.
func (s *subject) conversation(id string) {
	s.t.Helper()
	s.must(http.MethodPut, client.Path(id), `{"metadata":{"user_id":"u_4711","channel":"web"}}`, http.StatusOK)
	s.say(id, "m1", "system", text("You help travellers. Be short, and ask before you book."))
	s.say(id, "m2", "user", text("I have to be in Zürich on Thursday by 10:00. What leaves Berlin on Wednesday evening?"))
	s.say(id, "m3", "assistant", map[string]any{"type": "reasoning", "text": "A night train would arrive in time; flights land late on Wednesday."},
		map[string]any{"type": "tool-search_trains", "toolCallId": "call_81", "state": "output-available",
			"input": map[string]any{"from": "Berlin Hbf", "to": "Zürich HB", "depart_after": "2026-11-25T17:00"}, "output": map[string]any{"trains": []string{"NJ 471"}, "seats": 1e2}})
	s.say(id, "m4", "assistant", text("The NJ 471 leaves Berlin Hbf at 20:56 and is in Zürich HB at 09:05.\n\nShall I book a seat, or would you rather have a bed?"))
	s.say(id, "m5", "user", text("<img src=x onerror=\"window.broken = true\"> A bed, please."))
}

// shoot takes a picture, for people, where SCREENSHOTS says.
func (s *subject) shoot(name string, whole bool) {
	s.t.Helper()
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		require.NoError(s.t, os.MkdirAll(dir, 0o755))
		require.NoError(s.t, os.WriteFile(filepath.Join(dir, name+".png"), s.picture(whole), 0o644))
	}
}

// faint finds text on the page whose contrast with what is behind it is below
// 4.5 to 1, and returns some of it.
const faint = `(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => { for (; node; node = node.parentElement) { const c = rgba(getComputedStyle(node).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255]; };
  const out = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n = walker.nextNode(); n; n = walker.nextNode()) {
    const of = n.parentElement;
    if (!n.data.trim() || !of.checkVisibility({ visibilityProperty: true }) || of.closest('[disabled], noscript, .hidden, .skip')) continue;
    const style = getComputedStyle(of);
    const [a, b] = [light(rgba(of.closest('svg') ? style.fill : style.color)), light(behind(of))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) out.push(n.data.trim().slice(0, 30) + ' ' + ((a + 0.05) / (b + 0.05)).toFixed(2));
  }
  return out.slice(0, 8).join('; ');
})()`

// looksRight checks what holds of every view at every size.
func (s *subject) looksRight(name string) {
	s.t.Helper()
	require.Empty(s.t, s.evaluate(faint), "%s: text that is hard to read", name)
	require.LessOrEqual(s.t, s.evaluate(`document.documentElement.scrollWidth - innerWidth`), 0.0, "%s: wider than the window", name)
	spills := s.evaluate(`[...document.querySelectorAll('.panel, .figures > div')].filter((p) => p.checkVisibility() && p.scrollWidth > p.clientWidth + 1).map((p) => p.innerText.slice(0, 40)).join()`)
	require.Empty(s.t, spills, "%s: wider than their panels", name)
	unnamed := s.evaluate(`[...document.querySelectorAll('button, a, input')].filter((e) => e.checkVisibility() && ` +
		`!(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML).join()`)
	require.Empty(s.t, unnamed, "%s: without a name for screen readers", name)
}

// quote makes a JavaScript string.
func quote(text string) string {
	quoted, _ := json.Marshal(text) // text cannot fail
	return strings.ReplaceAll(string(quoted), "</", `<\/`)
}
