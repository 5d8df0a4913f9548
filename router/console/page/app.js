// The console: asks for the cluster and the latency every two seconds while
// somebody looks, and shows one of two views.
import { $, ask, say, span } from './dom.js';
import { showAppends, showLatency } from './latency.js';
import { showMap, startMap } from './map.js';
import { allowOrders, startOrders } from './orders.js';
import { showEvents, showFigures, showLeases, showMoves, showNodes } from './panels.js';
import { showConversations, startViewer } from './viewer.js';

const EVERY = 2_000;
let skew = 0; // of the server's clock against this one
let answer = null; // the last about the cluster
let append = null; // the newest point of latency
let unreachable = false;
let timer = 0;

const now = () => Date.now() + skew;

async function look() {
  clearTimeout(timer);
  const started = Date.now();
  await Promise.allSettled([lookAtCluster(), lookAtLatency()]);
  draw();
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, Math.max(250, EVERY - (Date.now() - started)));
}

async function lookAtCluster() {
  try {
    const { body, headers } = await ask('console/api/cluster');
    const said = Number(headers.get('X-Console-Now'));
    if (said) skew = said - Date.now();
    allowOrders(headers.get('X-Console-Orders') === 'true');
    answer = body;
    unreachable = false;
  } catch {
    unreachable = true;
  }
}

async function lookAtLatency() {
  if ($('cluster').hidden) return;
  const { body } = await ask('console/api/latency');
  const newest = body.points.at(-1);
  append = newest && body.now - newest.at < 3 * EVERY ? newest : null;
  showLatency(body);
}

function draw() {
  showHealth();
  const c = answer?.cluster;
  document.body.classList.toggle('blank', !c);
  if (!c || $('cluster').hidden) return;
  showMap(c, answer.at);
  showFigures(c, append);
  showNodes(c, now());
  showMoves(c, now());
  showLeases(c, now());
  showEvents(c);
  showAppends(c.appends);
}

function showHealth() {
  const age = answer?.at ? now() - answer.at : null;
  const banner = $('banner');
  let state = 'unknown';
  let text = 'Connecting';
  let problem = '';
  if (unreachable) {
    [state, text, problem] = ['bad', 'Router unreachable', 'This router does not answer.'];
  } else if (answer?.problem) {
    [state, text, problem] = ['warn', 'Control plane unreachable', answer.problem];
  } else if (answer?.cluster) {
    const s = answer.cluster.status;
    const lost = s.groups.no_quorum?.length ?? 0;
    [state, text] = s.healthy ? ['good', 'Healthy'] : lost ? ['bad', `${lost} groups without quorum`] : ['warn', 'Needs attention'];
  }
  if (problem && age !== null) problem += ` What you see is ${span(age)} old.`;
  $('health').dataset.state = state;
  say($('health-text'), text);
  say(banner, problem);
  banner.hidden = !problem;
  document.body.classList.toggle('stale', !!problem);
}

/** Shows the view that the address names: #/ or #/conversations/ID. */
function route() {
  const [, view = '', id = ''] = /^#\/([^/]*)\/?(.*)$/.exec(location.hash) ?? [];
  const conversations = view === 'conversations';
  $('cluster').hidden = conversations;
  $('conversations').hidden = !conversations;
  document.title = conversations ? 'Conversations – Fastpaca' : 'Cluster – Fastpaca';
  for (const tab of document.querySelectorAll('.tabs a')) {
    if ((tab.dataset.view === 'conversations') === conversations) tab.setAttribute('aria-current', 'page');
    else tab.removeAttribute('aria-current');
  }
  let named = '';
  try {
    named = decodeURIComponent(id);
  } catch {
    // Not an address that this page made.
  }
  showConversations(conversations, named);
  if (!conversations) look();
}

const THEMES = { system: 'Theme: system', light: 'Theme: light', dark: 'Theme: dark' };

function startTheme() {
  const show = (theme) => {
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    $('theme').dataset.theme = theme;
    $('theme').setAttribute('aria-label', THEMES[theme]);
    $('theme').title = THEMES[theme];
  };
  show(document.documentElement.dataset.theme ?? 'system');
  $('theme').addEventListener('click', () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf($('theme').dataset.theme) + 1) % names.length];
    show(next);
    try {
      if (next === 'system') localStorage.removeItem('fastpaca-theme');
      else localStorage.setItem('fastpaca-theme', next);
    } catch {
      // Not remembered then.
    }
  });
}

startTheme();
startOrders(look);
startMap(now);
startViewer();
addEventListener('hashchange', route);
document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : look()));
document.body.classList.add('blank');
route();
look();
