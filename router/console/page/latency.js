// The chart of append latency.
import { $, clock, el, keyed, latency, rate, say, span } from './dom.js';

const WINDOW = 300_000; // milliseconds shown
const BREAK = 35_000; // points further apart are not joined
const HEIGHT = 132;
const LEFT = 46;
const BOTTOM = 18;
const TOP = 8;

let built = null;
let width = 300; // of the chart, in pixels
let last = { now: 0, points: [] };
let everywhere = null; // the appends of the whole cluster, if they are known
let wide = true; // whether those are shown

function build() {
  const root = $('latency');
  const figure = (name, className) => el('div', { class: className }, el('dt', {}, name), el('dd', {}, '–'));
  built = {
    read: el('dl', { class: 'readout' }, figure('p50', 'p50'), figure('p99', 'p99'), figure('appends/s', 'rate'), figure('failed/s', 'failed')),
    when: el('p', { class: 'when', 'aria-hidden': 'true' }),
    chart: el('svg', { class: 'chart', height: HEIGHT, role: 'img', 'aria-label': 'Append latency' }),
    bar: el('div', { class: 'stages', 'aria-hidden': 'true' }),
    stages: el('tbody'),
  };
  const head = (name, className) => el('th', { scope: 'col', class: className }, name);
  const table = el('table', { class: 'breakdown' }, el('caption', { class: 'hidden' }, 'Where the time of an append goes'),
    el('thead', {}, el('tr', {}, head('Stage'), head('p50', 'n'), head('p99', 'n'), head('mean', 'n'))), built.stages);
  for (const input of document.querySelectorAll('input[name=of]')) {
    input.addEventListener('change', () => {
      wide = input.value === 'cluster';
      breakDown();
    });
  }
  built.chart.addEventListener('pointermove', (e) => {
    const box = built.chart.getBoundingClientRect();
    const t = last.now - WINDOW + ((e.clientX - box.left - LEFT) / (width - LEFT)) * WINDOW;
    const near = last.points.reduce((a, b) => (!a || Math.abs(b.at - t) < Math.abs(a.at - t) ? b : a), null);
    if (near) readOut(near, true);
  });
  built.chart.addEventListener('pointerleave', () => readOut(last.points.at(-1)));
  new ResizeObserver(([entry]) => {
    width = Math.max(160, entry.contentRect.width);
    draw(last);
  }).observe(built.chart);
  root.append(built.read, built.when, built.chart);
  $('stages').append(built.bar, table);
}

export function showLatency(answer) {
  if (!built) build();
  last = answer;
  readOut(answer.points.at(-1));
  draw(answer);
  breakDown();
}

/**
 * Takes what all processes measured, or nothing. Before data nodes have reported
 * (the control plane has just started) what routers measured is no more than the
 * own stages, and those name the rest.
 */
export function showAppends(recent) {
  everywhere = recent?.stages.some((s) => s.stage === 'apply' && s.count) ? recent : null;
  if (built) breakDown();
}

function readOut(p, pointed = false) {
  const values = p ? [latency(p.p50), latency(p.p99), rate(p.rate), rate(p.failed)] : ['–', '–', '–', '–'];
  [...built.read.querySelectorAll('dd')].forEach((dd, i) => say(dd, values[i]));
  built.read.querySelector('.failed').classList.toggle('bad', !!p?.failed);
  say(built.when, pointed ? clock(p.at) : p ? 'now' : 'waiting for a second sample');
}

/** The least round number that is not below n: 1, 2 or 5 times a power of ten. */
function roundUp(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((m) => m * power).find((m) => m >= n * 0.999);
}

function draw({ now, points }) {
  const shown = points.filter((p) => now - p.at <= WINDOW);
  const top = roundUp(Math.max(0.001, ...shown.map((p) => p.p99 ?? 0)));
  const x = (t) => LEFT + (1 - (now - t) / WINDOW) * (width - LEFT);
  const y = (v) => TOP + (1 - v / top) * (HEIGHT - TOP - BOTTOM);
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    parts.push(el('line', { class: 'rule', x1: LEFT, x2: width, y1: y(top * share), y2: y(top * share) }));
    parts.push(el('text', { x: LEFT - 6, y: y(top * share) + 3.5, 'text-anchor': 'end' }, share ? latency(top * share).replace(/\.0+ /, ' ') : '0'));
  }
  for (let minute = 0; minute <= 5; minute++) {
    const at = x(now - minute * 60_000);
    parts.push(el('text', { x: at, y: HEIGHT - 3, 'text-anchor': minute === 0 ? 'end' : minute === 5 ? 'start' : 'middle' }, minute === 5 ? '−5 min' : minute ? `−${minute}` : 'now'));
  }
  for (const run of runs(shown)) {
    const line = (name) => run.map((p, i) => `${i ? 'L' : 'M'}${x(p.at).toFixed(1)} ${y(p[name]).toFixed(1)}`).join('');
    const floor = y(0).toFixed(1);
    parts.push(el('path', { class: 'area', d: `${line('p99')}L${x(run.at(-1).at).toFixed(1)} ${floor}L${x(run[0].at).toFixed(1)} ${floor}Z` }));
    parts.push(el('path', { class: 'p99', d: line('p99') }), el('path', { class: 'p50', d: line('p50') }));
    if (run.length === 1) parts.push(el('circle', { class: 'p99', cx: x(run[0].at), cy: y(run[0].p99), r: 2 }));
  }
  if (!shown.some((p) => p.p99)) parts.push(el('text', { class: 'nothing', x: (width + LEFT) / 2, y: HEIGHT / 2 - 4, 'text-anchor': 'middle' }, last.measured === false ? 'This process does not measure: its telemetry is off' : 'No appends through this router yet'));
  built.chart.replaceChildren(...parts);
  const p = shown.at(-1);
  built.chart.setAttribute('aria-label', p?.p99 ? `Append latency: half below ${latency(p.p50)}, 99 of 100 below ${latency(p.p99)}` : 'Append latency: no appends just now');
}

/** Points with appends, where nothing is missing between them. */
function runs(points) {
  const out = [];
  let run = [];
  for (const p of points) {
    if (!p.p99 || (run.length && p.at - run.at(-1).at > BREAK)) {
      if (run.length) out.push(run);
      run = [];
    }
    if (p.p99) run.push(p);
  }
  if (run.length) out.push(run);
  return out;
}

const STAGES = {
  total: ['total', 'From the request to its answer'],
  receive: ['receive', 'Reading and checking the request'],
  route_wait: ['route', 'Finding the node that leads, other nodes and pauses included'],
  forward: ['network', 'The way to the data node and back'],
  node: ['data node', 'Queue, disk, quorum and apply: the data nodes measure them, each at its own /metrics. Here the mean of all that is known.'],
  queue: ['queue', 'Waiting on the leader for the entry before'],
  log_sync: ['disk', 'The leader’s log made durable'],
  replicate: ['quorum', 'Until enough replicas hold it'],
  apply: ['apply', 'The state machine'],
  respond: ['respond', 'Writing the answer'],
};

function breakDown() {
  const chosen = wide && everywhere ? everywhere : last.window;
  $('scope').hidden = !everywhere;
  say($('latency-note'), chosen ? `over ${span(chosen.seconds * 1000)}${chosen.processes > 1 ? `, ${chosen.processes} processes` : ''}` : '');
  $('latency-note').title = chosen?.left_out ? `${chosen.left_out} processes of another version are left out` : '';
  const total = chosen?.stages.find((s) => s.stage === 'total');
  $('stages-head').hidden = !total?.count;
  const stages = (chosen?.stages ?? []).filter((s) => s !== total && s.count);
  const sum = stages.reduce((n, s) => n + s.mean, 0) || 1;
  keyed(built.bar, stages, (s) => s.stage, (s) => el('i', { class: `stage ${s.stage}`, title: STAGES[s.stage]?.[0] }), (i, s) => {
    i.style.setProperty('flex-grow', String(s.mean / sum));
  });
  keyed(built.stages, total?.count ? [...stages, total] : [], (s) => s.stage, (s) => {
    const [name, help] = STAGES[s.stage] ?? [s.stage, ''];
    return el('tr', { class: s.stage === 'total' ? 'total' : undefined, title: help },
      el('th', { scope: 'row' }, el('span', { class: `swatch stage ${s.stage}`, 'aria-hidden': 'true' }), name), ...['p50', 'p99', 'mean'].map(() => el('td', { class: 'n' })));
  }, (row, s) => [s.p50, s.p99, s.mean].forEach((value, i) => say(row.children[i + 1], short(value))));
}

const short = (seconds) => (seconds && seconds < 0.0001 ? '<0.1 ms' : latency(seconds));
