package console

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// TestConsole goes through a console as an operator does, from the first look to
// a cluster without a control plane.
func TestConsole(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.conversation("trip-2026-11-25/berlin zürich")
	for i := range 12 {
		s.must(http.MethodPut, client.Path(fmt.Sprintf("chat-%04d", i*37)), `{"metadata":{}}`, http.StatusOK)
	}
	s.must(http.MethodPut, client.Path(hostile), `{"metadata":{"`+"<b>"+`":"<script>"}}`, http.StatusOK)
	s.say(hostile, "h1", "user", text(hostile))
	s.load()
	s.size(1440, 1000, false)
	s.prefer("light")
	s.open(s.base + "/console")
	for _, step := range []struct {
		name string
		run  func(*subject)
	}{
		{"map", theMap}, {"latency", latency}, {"keyboard", keyboard}, {"sizes", sizes}, {"conversation", conversation}, {"restart", restart},
		{"orders", orders}, {"theme", theme}, {"control plane down", withoutControl}, {"moves", moves}, {"node down", withoutNode}, {"no quorum", withoutQuorum},
	} {
		require.True(t, t.Run(step.name, func(t *testing.T) {
			outer := s.t
			s.t = t
			defer func() { s.t = outer }()
			step.run(s)
		}))
	}
	require.NotEqual(t, true, s.evaluate("window.broken"), "a message is text, whatever it says")
}

// theMap: all groups are there, each in the colour of the node that leads it.
func theMap(s *subject) {
	s.until("every group has a leader", `document.querySelectorAll('.cell[data-state="well"]').length === 256`)
	s.settle()
	require.EqualValues(s.t, 256, s.evaluate(`document.querySelectorAll('#map .cell').length`))
	require.EqualValues(s.t, 3, s.evaluate(`new Set([...document.querySelectorAll('.cell')].map((c) => c.dataset.owner)).size`), "three nodes lead")
	require.EqualValues(s.t, 3, s.evaluate(`new Set([...document.querySelectorAll('.cell')].map((c) => getComputedStyle(c).backgroundColor)).size`), "in three colours")
	require.EqualValues(s.t, 256, s.evaluate(`[...document.querySelectorAll('#legend b')].reduce((n, b) => n + Number(b.textContent), 0)`))
	require.Equal(s.t, "Healthy", s.evaluate(`document.getElementById('health-text').textContent`))
	require.EqualValues(s.t, 3, s.evaluate(`[...document.querySelectorAll('#nodes .tag')].filter((n) => n.textContent === 'up').length`))
	require.Contains(s.t, s.evaluate(`document.getElementById('events').innerText`), "Node d1 joined")
	s.until("latency is live", `/ms/.test(document.querySelector('.readout .p99 dd').textContent) && document.querySelector('.chart .p99')`)
	s.until("a line of it", `document.querySelector('.chart path.p99').getAttribute('d').includes('L')`)
	s.clean()
}

// stage is the row of a stage: its p50, p99 and mean.
func (s *subject) stage(name string) []any {
	s.t.Helper()
	cells, _ := s.evaluate(`[...[...document.querySelectorAll('.breakdown tbody tr')].find((r) => r.cells[0].textContent === ` + quote(name) + `)?.cells ?? []].slice(1).map((c) => c.textContent)`).([]any)
	return cells
}

// latency: stages of the whole cluster, those of data nodes too, and of this router.
func latency(s *subject) {
	s.until("the data nodes have reported", `[...document.querySelectorAll('.breakdown tbody th')].map((h) => h.textContent).join() === 'receive,route,network,queue,disk,quorum,apply,respond,total'`)
	for _, stage := range []string{"queue", "disk", "quorum", "total"} {
		cells := s.stage(stage)
		require.Len(s.t, cells, 3, stage)
		for _, value := range cells {
			require.Regexp(s.t, `^(<0\.1|[\d.]+) m?s$`, value, stage)
		}
	}
	require.Regexp(s.t, `^over \d+ (s|min), 4 processes$`, s.evaluate(`document.getElementById('latency-note').textContent`))
	s.evaluate(`document.querySelector('input[name=of][value=router]').click()`)
	s.until("those of this router", `[...document.querySelectorAll('.breakdown tbody th')].map((h) => h.textContent).join() === 'receive,route,network,data node,respond,total'`)
	s.evaluate(`document.querySelector('input[name=of][value=cluster]').click()`)
	s.clean()
}

// keyboard: the map is walked with the arrow keys, and a group opened.
func keyboard(s *subject) {
	s.evaluate(`document.querySelector('.cell').focus()`)
	s.press("ArrowRight", "ArrowDown")
	require.Equal(s.t, "17", s.evaluate(`document.activeElement.dataset.group`))
	require.Regexp(s.t, `^Group 17, led by d[123] in term \d+, replicas on d\d, d\d, d\d$`, s.evaluate(`document.activeElement.ariaLabel`))
	require.Equal(s.t, false, s.evaluate(`document.getElementById('tooltip').hidden`))
	s.shoot("tooltip", false)
	s.press("Enter")
	s.until("the group is shown", `/Group 17/.test(document.getElementById('group').innerText) && document.querySelectorAll('#group .members li').length === 3`)
	s.press("Escape")
	s.until("the tooltip is gone", `document.getElementById('tooltip').hidden`)
	s.clean()
}

// sizes: both views read well in both colours, on a wide screen and a phone.
func sizes(s *subject) {
	backgrounds := make(map[string]any)
	for _, view := range []struct{ name, hash, ready string }{
		{"cluster", "#/", `!document.getElementById('cluster').hidden`},
		{"conversations", "#/conversations/" + escaped, `document.querySelectorAll('.message').length >= 5`},
	} {
		s.evaluate(`location.hash = ` + quote(view.hash))
		s.until(view.name, view.ready)
		for _, size := range []struct {
			name          string
			width, height int
			phone         bool
		}{{"wide", 1440, 1000, false}, {"laptop", 1180, 800, false}, {"phone", 390, 844, true}} {
			if view.name != "cluster" && size.name == "laptop" {
				continue // as the wide one
			}
			s.size(size.width, size.height, size.phone)
			for _, scheme := range []string{"light", "dark"} {
				s.prefer(scheme)
				s.settle()
				name := view.name + "-" + size.name + "-" + scheme
				s.looksRight(name)
				backgrounds[scheme] = s.evaluate(`getComputedStyle(document.body.querySelector('.panel')).backgroundColor`)
				s.shoot(name, view.name == "cluster")
			}
		}
	}
	require.NotEqual(s.t, backgrounds["light"], backgrounds["dark"])
	s.size(1440, 1000, false)
	s.prefer("light")
	s.clean()
}

// settle waits until colours have faded over and a frame was drawn.
func (s *subject) settle() {
	s.t.Helper()
	s.evaluate(`Promise.all(document.getAnimations().map((a) => a.finished.catch(() => {}))).then(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))))`)
}

const (
	trip = "trip-2026-11-25/berlin zürich"
	// hostile would run if any of it were taken for markup.
	hostile = `<img src=x onerror="window.broken=true"><script>window.broken=true</script>`
	escaped = "trip-2026-11-25%2Fberlin%20z%C3%BCrich"
)

// seqs are the messages on the page.
const seqs = `[...document.querySelectorAll('.message')].map((m) => m.dataset.seq).join()`

// conversation: one is found by its prefix, read, and followed.
func conversation(s *subject) {
	s.evaluate(`location.hash = '#/conversations'`)
	s.evaluate(`document.getElementById('prefix').focus()`)
	s.insert("trip-")
	s.until("one is found", `document.querySelectorAll('#list li').length === 1`)
	s.evaluate(`document.querySelector('#list a').click()`)
	s.until("it is followed", `document.getElementById('live-text').textContent === 'Live'`)
	require.Equal(s.t, "1,2,3,4,5", s.evaluate(seqs))
	s.say(trip, "m6", "assistant", text("A bed on the NJ 471 it is."))
	s.until("the appended message is shown", `/A bed on the NJ 471 it is/.test(document.getElementById('messages').lastElementChild.textContent)`)
	require.Equal(s.t, "1,2,3,4,5,6", s.evaluate(seqs))
	s.evaluate(`document.querySelector('.message[data-seq="3"] details').open = true`)
	s.until("a part is shown whole", `/"toolCallId"|"text": "A night train/.test(document.querySelector('.message[data-seq="3"] pre').textContent)`)
	s.clean()

	// Nothing that people choose is markup: neither what is said nor its name.
	s.evaluate(`document.getElementById('prefix').value = '<'; document.getElementById('search').requestSubmit()`)
	s.until("it is found", `document.querySelectorAll('#list li').length === 1 && document.querySelector('#list .id').textContent === `+quote(hostile))
	s.evaluate(`document.querySelector('#list a').click()`)
	s.until("it is followed", `document.getElementById('transcript-title').textContent === `+quote(hostile)+` && document.getElementById('live-text').textContent === 'Live'`)
	s.say(hostile, "h2", "user", map[string]any{"type": hostile, hostile: hostile})
	s.until("what is appended to it is shown", `document.querySelectorAll('.message').length === 2`)
	require.Equal(s.t, hostile, s.evaluate(`document.querySelector('.message .text').textContent`))
	require.EqualValues(s.t, 0, s.evaluate(`document.querySelectorAll('main img, main script, main iframe').length`))
	s.clean()

	// Longer than a page of it, and read backwards.
	const long = "chat-0037"
	for i := 1; i <= 120; i++ {
		s.say(long, fmt.Sprint("l", i), "user", text(fmt.Sprint("line ", i)))
	}
	s.evaluate(`location.hash = '#/conversations/` + long + `'`)
	s.until("the end of it", `document.querySelectorAll('.message').length === 50 && document.querySelector('.message').dataset.seq === '71'`)
	for _, first := range []string{"21", "1"} {
		s.evaluate(`document.getElementById('earlier').click()`)
		s.until("earlier messages", `document.querySelector('.message').dataset.seq === '`+first+`'`)
	}
	require.Equal(s.t, true, s.evaluate(`document.getElementById('earlier').hidden`))
	require.Equal(s.t, true, s.evaluate(seqs+` === Array.from({ length: 120 }, (_, i) => i + 1).join()`))
	s.evaluate(`document.getElementById('log').scrollTop = 0`)
	s.say(long, "l121", "user", text("line 121"))
	s.until("it says that there is news", `document.getElementById('jump').textContent.startsWith('1 new message')`)
	s.evaluate(`document.getElementById('jump').click()`)
	s.until("the end", `document.getElementById('jump').hidden`)
	s.clean()
}

// restart: the tail goes on where it was when the router is back.
func restart(s *subject) {
	s.evaluate(`location.hash = '#/conversations/` + escaped + `'`)
	s.until("it is followed", `document.getElementById('live-text').textContent === 'Live'`)
	router := s.cluster.Routers[0]
	router.Kill()
	s.until("it says so", `document.getElementById('live-text').textContent === 'Reconnecting'`)
	require.NoError(s.t, router.Start())
	ctx, cancel := context.WithTimeout(s.t.Context(), process.ReadyTimeout)
	defer cancel()
	require.NoError(s.t, router.WaitReady(ctx))
	s.say(trip, "m7", "user", text("Thanks!"))
	s.until("the message is shown", `document.getElementById('messages').lastElementChild.dataset.seq === '7'`)
	require.Equal(s.t, "1,2,3,4,5,6,7", s.evaluate(seqs), "each once")
	s.problems = nil // the browser tells of connections that broke
}

// unlock gives the page a token.
func (s *subject) unlock(token string) {
	s.evaluate(`document.querySelector('#token') || document.getElementById('unlock').click()`)
	s.evaluate(`document.getElementById('token').value = ''; document.getElementById('token').focus()`)
	s.insert(token)
	s.press("Enter")
}

// orders: with the cluster's token, and nothing else, the page changes things.
func orders(s *subject) {
	s.evaluate(`location.hash = '#/'`)
	s.until("nothing to press yet", `document.querySelectorAll('#nodes tr').length === 3 && ![...document.querySelectorAll('button.operate')].some((b) => b.checkVisibility())`)
	s.unlock("not-the-token-of-this-cluster")
	s.until("a wrong token is refused", `/not the cluster’s token/.test(document.getElementById('dialog-problem').textContent)`)
	s.shoot("token", false)
	s.unlock(token)
	s.until("the right one is taken", `document.body.classList.contains('operating') && !document.getElementById('dialog').open`)
	require.NotContains(s.t, s.evaluate(`JSON.stringify(localStorage) + document.cookie + location.href`), token)
	s.problems = nil // the browser tells of the refused request

	// Three nodes hold three replicas each: none can go.
	s.evaluate(`[...document.querySelectorAll('#nodes button')].find((b) => b.textContent === 'Drain').click()`)
	s.until("the control plane's reason is shown", `/too few nodes/.test(document.getElementById('toast').textContent)`)
	s.shoot("refused", false)
	s.problems = nil

	// The panel of group 17 is still open.
	s.until("a follower can be chosen", `document.querySelector('#group .members button:not(:disabled)')`)
	s.evaluate(`document.querySelector('#group .members button:not(:disabled)').click()`)
	s.until("it asks", `document.getElementById('dialog').open && /lead group 17/.test(document.getElementById('dialog-title').textContent)`)
	wanted := s.evaluate(`/Have (\w+) lead/.exec(document.getElementById('dialog-title').textContent)[1]`)
	s.evaluate(`document.getElementById('dialog-yes').click()`)
	s.until("the leader changes", `document.querySelector('.cell[data-group="17"]').dataset.owner === `+quote(wanted.(string)))
	s.until("the event is shown", `/is to lead group 17/.test(document.getElementById('events').innerText)`)
	s.evaluate(`document.getElementById('rebalance').click()`)
	s.until("the plan is shown", `document.getElementById('dialog').open && /Rebalance/.test(document.getElementById('dialog-title').textContent)`)
	s.evaluate(`document.getElementById('dialog-no').click()`)
	s.evaluate(`document.getElementById('unlock').click()`)
	s.until("it looks only again", `!document.body.classList.contains('operating') && sessionStorage.length === 0`)
	s.clean()
}

// moves: a rebalance fills the node that has joined.
func moves(s *subject) {
	s.unlock(token)
	s.until("orders are taken", `document.body.classList.contains('operating')`)
	s.evaluate(`document.getElementById('rebalance').click()`)
	s.until("the plan is shown", `/\d+ replicas would be moved/.test(document.getElementById('dialog').innerText)`)
	s.shoot("rebalance", false)
	s.evaluate(`document.getElementById('dialog-yes').click()`)
	s.until("moves are shown", `document.querySelector('#moves .steps i.now') && document.querySelector('#moves .route').textContent.includes('d4')`)
	s.until("and how far it is", `document.querySelector('#rebalancing progress').max > 100 && document.querySelector('.cell.moving')`)
	s.until("it goes on", `document.querySelector('#rebalancing progress').value > 2`)
	s.settle()
	s.looksRight("moves")
	s.shoot("moves", true)
	s.size(390, 844, true)
	s.prefer("dark")
	s.settle()
	s.looksRight("moves on a phone")
	s.shoot("moves-phone-dark", true)
	s.size(1440, 1000, false)
	s.prefer("light")
	s.evaluate(`document.querySelector('#rebalancing button').click()`)
	s.until("it asks", `document.getElementById('dialog').open`)
	s.evaluate(`document.getElementById('dialog-yes').click()`)
	s.until("the rebalance is over", `document.getElementById('rebalancing').hidden && /was cancelled/.test(document.getElementById('events').innerText)`)
	s.evaluate(`document.getElementById('unlock').click()`)
	s.problems = nil // an order may be refused while its group moves
}

// theme: while another node joins, the choice outlives a reload, and the system's choice is the default.
func theme(s *subject) {
	joining, err := s.cluster.AddData()
	require.NoError(s.t, err)
	require.NoError(s.t, joining.Start())
	s.prefer("dark")
	background := `getComputedStyle(document.documentElement).backgroundColor`
	dark := s.evaluate(background)
	s.evaluate(`document.getElementById('theme').click()`)
	s.until("light although the system is dark", background+` !== `+quote(dark.(string)))
	s.send("Page.reload", nil)
	s.until("still", `document.readyState === 'complete' && document.getElementById('theme').dataset.theme === 'light'`)
	s.evaluate(`document.getElementById('theme').click(); document.getElementById('theme').click()`)
	s.until("as the system", `!document.documentElement.dataset.theme`)
	s.until("all of it is there", `document.querySelectorAll('.cell[data-owner]').length === 256`)
	s.clean()
}

// withoutControl: what was seen last stays, with its age, and messages flow.
func withoutControl(s *subject) {
	s.until("the node that joins is shown", `document.querySelectorAll('#nodes tr').length === 4 && document.querySelectorAll('.cell[data-state="well"]').length === 256`)
	for _, n := range s.cluster.Control {
		n.Kill()
	}
	s.until("it says so", `/What you see is \d+ s old/.test(document.getElementById('banner').textContent)`)
	require.EqualValues(s.t, 256, s.evaluate(`document.querySelectorAll('.cell[data-state="well"]').length`))
	require.EqualValues(s.t, 4, s.evaluate(`document.querySelectorAll('#nodes tr').length`))
	s.looksRight("stale")
	s.shoot("stale-dark", true)
	s.say(trip, "m8", "user", text("Still there?"))
	ctx, cancel := context.WithTimeout(s.t.Context(), process.ReadyTimeout)
	defer cancel()
	require.NoError(s.t, s.cluster.Control[0].Start())
	require.NoError(s.t, s.cluster.Control[0].WaitReady(ctx))
	s.until("it sees the cluster again", `document.getElementById('banner').hidden && document.querySelectorAll('#nodes .tag[data-state="up"]').length === 4`)
	require.Positive(s.t, s.appends.Load())
	s.problems = nil // the browser may tell of answers that were failures
}

// withoutNode: when a node dies its groups get other leaders, and their colours.
func withoutNode(s *subject) {
	require.NotZero(s.t, s.evaluate(`document.querySelectorAll('.cell[data-owner="d1"]').length`))
	s.cluster.Data[0].Kill()
	s.until("it leads nothing", `document.querySelectorAll('.cell[data-owner="d1"]').length === 0 && document.querySelectorAll('.cell[data-state="well"], .cell[data-state="short"]').length > 200`)
	s.until("it is down", `[...document.querySelectorAll('#nodes tr')].find((r) => r.textContent.startsWith('d1')).querySelector('.tag').textContent === 'down'`)
	s.settle()
	gone := s.evaluate(`getComputedStyle(document.querySelector('#legend .swatch')).backgroundColor`)
	require.NotContains(s.t, s.evaluate(`[...new Set([...document.querySelectorAll('.cell')].map((c) => getComputedStyle(c).backgroundColor))]`), gone)
	require.Contains(s.t, s.evaluate(`document.getElementById('events').innerText`), "Node d1 fell silent")
	s.looksRight("node down")
}

// withoutQuorum: groups that take no writes are seen at a glance.
func withoutQuorum(s *subject) {
	s.cluster.Data[1].Kill()
	s.until("it says so", `/groups without quorum/.test(document.getElementById('health-text').textContent)`)
	require.Equal(s.t, true, s.evaluate(`document.querySelectorAll('.cell[data-state="quorum"]').length > 100`))
	require.Contains(s.t, s.evaluate(`document.querySelector('.cell[data-state="quorum"]').ariaLabel`), "no quorum")
	s.settle()
	s.looksRight("no quorum")
	s.shoot("no-quorum-dark", true)
}
