package console

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// patience bounds every wait for something that the page is to show. It is a
// bound against hanging for ever, generous enough for a busy machine.
const patience = 60 * time.Second

// maxFrame bounds an answer of the browser: pictures are large.
const maxFrame = 64 << 20

var browserFlags = []string{
	"--headless=new", "--remote-debugging-port=0", "--no-first-run", "--no-default-browser-check", "--disable-gpu",
	"--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
	"--hide-scrollbars",
	// Nobody looks at the page, and its timers are to run all the same.
	"--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding",
}

// page is the one page of a browser of its own. It is used by one goroutine.
type page struct {
	t        *testing.T
	conn     *websocket.Conn
	session  string
	next     int
	problems []string // exceptions, and what the console of the browser was told
}

// findChromium returns the program, or skips the test and says so where it is
// seen.
func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome-stable", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	why := "there is no chromium; CHROMIUM names one that is elsewhere"
	fmt.Fprintf(os.Stderr, "NOT RUN: %s: %s\n", t.Name(), why)
	t.Skip(why)
	return ""
}

// openBrowser starts a browser with an empty page, until the test ends.
func openBrowser(t *testing.T) *page {
	t.Helper()
	program := findChromium(t)
	profile := t.TempDir()
	args := append([]string{"--user-data-dir=" + profile}, browserFlags...)
	if os.Getuid() == 0 {
		args = append(args, "--no-sandbox") // it does not run as root; what it loads is of this repository
	}
	cmd := exec.Command(program, append(args, "about:blank")...)
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed when it does not end by itself
	}()
	p := &page{t: t}
	t.Cleanup(func() {
		// Asked first: killed, it leaves children that still write to the profile.
		if p.conn != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = p.conn.Write(ctx, websocket.MessageText, []byte(`{"id":0,"method":"Browser.close"}`))
		}
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if p.conn != nil {
			_ = p.conn.CloseNow()
		}
	})
	written := filepath.Join(profile, "DevToolsActivePort")
	var where []string
	require.Eventually(t, func() bool {
		content, err := os.ReadFile(written)
		where = strings.Fields(string(content))
		return err == nil && len(where) == 2
	}, patience, 20*time.Millisecond, "Chromium listens")
	conn, _, err := websocket.Dial(t.Context(), "ws://127.0.0.1:"+where[0]+where[1], nil)
	require.NoError(t, err)
	conn.SetReadLimit(maxFrame)
	p.conn = conn
	target := p.send("Target.createTarget", map[string]any{"url": "about:blank"})
	session := p.send("Target.attachToTarget", map[string]any{"targetId": target["targetId"], "flatten": true})
	p.session = session["sessionId"].(string)
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		p.send(domain+".enable", nil)
	}
	return p
}

// send sends a command and returns its result.
func (p *page) send(method string, params map[string]any) map[string]any {
	p.t.Helper()
	p.next++
	command := map[string]any{"id": p.next, "method": method}
	if params != nil {
		command["params"] = params
	}
	if p.session != "" {
		command["sessionId"] = p.session
	}
	text, err := json.Marshal(command)
	require.NoError(p.t, err)
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	require.NoError(p.t, p.conn.Write(ctx, websocket.MessageText, text))
	for {
		_, text, err := p.conn.Read(ctx)
		require.NoError(p.t, err, method)
		var got struct {
			ID     int
			Result map[string]any
			Error  *struct{ Message string }
			Method string
			Params json.RawMessage
		}
		require.NoError(p.t, json.Unmarshal(text, &got))
		p.note(got.Method, got.Params)
		if got.ID != p.next {
			continue
		}
		require.Nil(p.t, got.Error, method)
		return got.Result
	}
}

// note keeps what a clean page never says.
func (p *page) note(method string, params json.RawMessage) {
	switch method {
	case "Runtime.exceptionThrown":
		p.problems = append(p.problems, string(params))
	case "Log.entryAdded":
		var entry struct {
			Entry struct{ Level, Text, URL, Source string }
		}
		if err := json.Unmarshal(params, &entry); err != nil || entry.Entry.Level == "error" {
			p.problems = append(p.problems, fmt.Sprintf("%s: %s (%s)", entry.Entry.Source, entry.Entry.Text, entry.Entry.URL))
		}
	}
}

// clean fails the test if the page had problems since the last call.
func (p *page) clean() {
	p.t.Helper()
	require.Empty(p.t, p.problems)
}

func (p *page) open(url string) {
	p.t.Helper()
	p.send("Page.navigate", map[string]any{"url": url})
}

// evaluate returns what an expression, or the promise that it is, comes to.
func (p *page) evaluate(expression string) any {
	p.t.Helper()
	got := p.send("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true})
	require.NotContains(p.t, got, "exceptionDetails", expression)
	return got["result"].(map[string]any)["value"]
}

// until waits until an expression holds. What it throws counts as no.
func (p *page) until(what, expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for p.evaluate("(() => { try { return !!("+expression+") } catch { return false } })()") != true {
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			require.Fail(p.t, what, "page: %v\nproblems: %v", p.evaluate("document.body.innerText"), p.problems)
		}
	}
}

// press presses a key that makes no text.
func (p *page) press(keys ...string) {
	p.t.Helper()
	codes := map[string]int{"ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Tab": 9, "Escape": 27}
	for _, key := range keys {
		event := map[string]any{"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
		if key == "Enter" {
			event["text"] = "\r"
		}
		for _, kind := range []string{"keyDown", "keyUp"} {
			event["type"] = kind
			p.send("Input.dispatchKeyEvent", event)
		}
	}
}

func (p *page) insert(text string) {
	p.t.Helper()
	p.send("Input.insertText", map[string]any{"text": text})
}

// size makes the window so large; a phone also touches.
func (p *page) size(width, height int, phone bool) {
	p.t.Helper()
	scale := 1
	if phone {
		scale = 2
	}
	p.send("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone})
}

// prefer sets the colours that the system prefers, light or dark.
func (p *page) prefer(scheme string) {
	p.t.Helper()
	p.send("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
}

// picture takes a screenshot and returns it as PNG.
func (p *page) picture(whole bool) []byte {
	p.t.Helper()
	got := p.send("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": whole})
	image, err := base64.StdEncoding.DecodeString(got["data"].(string))
	require.NoError(p.t, err)
	return image
}
