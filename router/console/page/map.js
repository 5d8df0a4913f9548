// The map of groups: sixteen rows of sixteen cells.
import { $, count, el, keyed, say, span } from './dom.js';
import { colourOf, learn, swatch } from './palette.js';
import { orderButton } from './orders.js';

const WIDTH = 16;
const cells = [];
let focused = 0;
let chosen = null;
let by = 'leader';
let shown = null; // the cluster last shown
let applied = new Map(); // of each group, in the newest answer
let busy = new Set(); // groups that applied something since the answer before it
let drawn = 0; // the moment that the answer was of
let now = () => Date.now();

export function startMap(clock) {
  now = clock;
  const map = $('map');
  map.append(el('div', { role: 'presentation', class: 'corner' }));
  for (let column = 0; column < WIDTH; column++) map.append(el('div', { class: 'axis', 'aria-hidden': 'true' }, String(column)));
  for (let row = 0; row < WIDTH; row++) {
    const line = el('div', { role: 'row', class: 'line' }, el('div', { class: 'axis', 'aria-hidden': 'true' }, String(row * WIDTH)));
    for (let column = 0; column < WIDTH; column++) {
      const number = row * WIDTH + column;
      const cell = el('button', { type: 'button', role: 'gridcell', class: 'cell', tabindex: number ? -1 : 0, 'aria-label': `Group ${number}` });
      cell.dataset.group = number;
      cells.push(cell);
      line.append(cell);
    }
    map.append(line);
  }
  map.addEventListener('keydown', walk);
  map.addEventListener('click', (e) => {
    const cell = e.target.closest('.cell');
    if (cell) choose(Number(cell.dataset.group));
  });
  for (const kind of ['pointerover', 'focusin']) {
    map.addEventListener(kind, (e) => {
      const cell = e.target.closest('.cell');
      if (cell) point(cell);
      else hide();
    });
  }
  for (const kind of ['pointerleave', 'focusout']) map.addEventListener(kind, hide);
  for (const input of document.querySelectorAll('input[name=by]')) {
    input.addEventListener('change', () => {
      by = input.value;
      if (shown) draw();
    });
  }
}

/** Moves the focus with the arrow keys; one cell is in the order of tabs. */
function walk(e) {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: WIDTH, ArrowUp: -WIDTH }[e.key];
  let next = focused;
  if (step) next = focused + step;
  else if (e.key === 'Home') next = e.ctrlKey ? 0 : focused - (focused % WIDTH);
  else if (e.key === 'End') next = e.ctrlKey ? cells.length - 1 : focused - (focused % WIDTH) + WIDTH - 1;
  else if (e.key === 'Escape') return hide();
  else return;
  e.preventDefault();
  if (next < 0 || next >= cells.length) return;
  focus(next);
  cells[next].focus();
}

function focus(number) {
  cells[focused].tabIndex = -1;
  focused = number;
  cells[number].tabIndex = 0;
}

export function showMap(cluster, moment) {
  if (moment !== drawn) {
    const groups = cluster.groups ?? [];
    // Of 0 nothing was known: a control plane that has just started learns it anew.
    busy = new Set(groups.filter((g) => g.applied > (applied.get(g.group) || Infinity)).map((g) => g.group));
    applied = new Map(groups.map((g) => [g.group, g.applied]));
    drawn = moment;
  }
  shown = cluster;
  learn(cluster.nodes ?? []);
  draw();
}

function ownerOf(g, lease) {
  return by === 'leader' ? g.leader : lease && lease.holder && Date.parse(lease.expires_at) > now() ? lease.holder : '';
}

function draw() {
  const leases = new Map((shown.leases ?? []).map((l) => [l.group, l]));
  const owned = new Map();
  const seen = { quorum: 0, leaderless: 0, moving: 0, short: 0, busy: 0 };
  const groups = new Map((shown.groups ?? []).map((g) => [g.group, g]));
  for (const cell of cells) {
    const number = Number(cell.dataset.group);
    const g = groups.get(number);
    const owner = g ? ownerOf(g, leases.get(number)) : '';
    const state = stateOf(g, shown.status.replication_factor);
    owned.set(owner, (owned.get(owner) ?? 0) + 1);
    cell.style.setProperty('--c', owner ? colourOf(owner) : 'var(--nobody)');
    cell.dataset.owner = owner;
    cell.dataset.state = state;
    cell.classList.toggle('busy', busy.has(number));
    cell.classList.toggle('moving', !!g?.move);
    cell.setAttribute('aria-label', describe(number, g));
    cell.setAttribute('aria-selected', String(number === chosen));
    if (state in seen) seen[state]++;
    if (g?.move) seen.moving++;
    if (busy.has(number)) seen.busy++;
  }
  legend(owned);
  marks(seen);
  if (chosen !== null) detail(groups.get(chosen), leases.get(chosen));
}

function stateOf(g, factor) {
  if (!g || !g.formed) return 'unplaced';
  if (!g.quorum) return 'quorum';
  if (!g.leader) return 'leaderless';
  if (g.replicas.filter((r) => r.voter && !r.lost).length < Math.min(factor, g.replicas.length || factor)) return 'short';
  return 'well';
}

const STATES = {
  unplaced: 'not placed yet', quorum: 'no quorum: it takes no writes', leaderless: 'no leader', short: 'fewer replicas than wanted', well: '',
};

function describe(number, g) {
  if (!g) return `Group ${number}, not known`;
  const state = STATES[stateOf(g, shown.status.replication_factor)];
  return [
    `Group ${number}`, state, g.leader ? `led by ${g.leader} in term ${g.term}` : '',
    g.replicas.length ? `replicas on ${g.replicas.map((r) => r.node).join(', ')}` : '', g.move ? `move ${g.move} under way` : '',
  ].filter(Boolean).join(', ');
}

function legend(owned) {
  const nodes = (shown.nodes ?? []).filter((n) => n.state !== 'removed' || owned.get(n.id));
  const items = nodes.map((n) => ({ id: n.id, label: n.id, n: owned.get(n.id) ?? 0 }));
  if (owned.get('')) items.push({ id: '', label: by === 'leader' ? 'no leader' : 'not archived', n: owned.get('') });
  keyed($('legend'), items, (i) => i.id, (i) => el('li', {
    tabindex: 0, onpointerenter: () => light(i.id), onpointerleave: () => light(null), onfocus: () => light(i.id), onblur: () => light(null),
  }, swatch(i.id), el('span', { class: 'name' }), el('b')), (li, i) => {
    li.querySelector('.swatch').style.setProperty('--c', i.id ? colourOf(i.id) : 'var(--nobody)');
    say(li.querySelector('.name'), i.label);
    say(li.querySelector('b'), String(i.n));
  });
}

/** Lets only the groups of one owner stand out; null lets all. */
function light(owner) {
  $('map').classList.toggle('dimmed', owner !== null);
  for (const cell of cells) cell.classList.toggle('lit', owner !== null && cell.dataset.owner === owner);
}

const MARKS = [['quorum', 'no quorum'], ['leaderless', 'no leader'], ['short', 'short of replicas'], ['moving', 'moving'], ['busy', 'wrote just now']];

function marks(seen) {
  keyed($('marks'), MARKS.filter(([name]) => seen[name] || name === 'busy' || name === 'quorum'), ([name]) => name, ([name, label]) =>
    el('li', {}, el('span', { class: `mark ${name}`, 'aria-hidden': 'true' }), el('span', { class: 'name' }, label), el('b')),
  (li, [name]) => say(li.querySelector('b'), String(seen[name])));
}

function lagText(r, g) {
  if (r.lost) return 'lost its data';
  if (r.node === g.leader) return 'leads';
  const lag = r.lag === undefined ? 'lag unknown' : r.lag === 0 ? 'caught up' : `${count(r.lag)} behind`;
  return [r.leaving ? 'leaves' : r.voter ? '' : 'joins', lag].filter(Boolean).join(', ');
}

function point(cell) {
  const number = Number(cell.dataset.group);
  const g = shown?.groups?.find((x) => x.group === number);
  if (!g) return;
  focusQuietly(cell, number);
  const tip = $('tooltip');
  const state = STATES[stateOf(g, shown.status.replication_factor)];
  tip.replaceChildren(
    el('p', { class: 'title' }, `Group ${number}`, state ? el('span', { class: 'alarm' }, state) : ''),
    el('ul', {}, ...g.replicas.map((r) => el('li', {}, swatch(r.node), el('b', {}, r.node), el('span', {}, lagText(r, g))))),
    el('p', { class: 'facts' }, `term ${count(g.term)} · applied ${count(g.applied)}${g.move ? ` · move ${g.move}` : ''}`),
  );
  tip.hidden = false;
  const box = cell.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 8);
  const above = box.top - own.height - 8;
  tip.style.setProperty('left', `${left}px`);
  tip.style.setProperty('top', `${above > 8 ? above : box.bottom + 8}px`);
}

function focusQuietly(cell, number) {
  if (document.activeElement === cell) focus(number);
}

function hide() {
  $('tooltip').hidden = true;
}

function choose(number) {
  chosen = chosen === number ? null : number;
  focus(number);
  $('group').hidden = chosen === null;
  $('group').replaceChildren();
  if (shown) draw();
  if (chosen !== null) $('group').scrollIntoView({ block: 'nearest' });
}

function close() {
  const number = chosen;
  choose(number);
  cells[number].focus();
}

function detail(g, lease) {
  const panel = $('group');
  if (!g) return;
  if (!panel.firstChild) {
    panel.append(
      el('header', {}, el('h2', {}, `Group ${g.group}`), el('p', { class: 'note' }),
        el('button', { type: 'button', class: 'small', onclick: close }, 'Close')),
      el('ul', { class: 'members' }), el('dl', { class: 'facts' }));
  }
  const state = STATES[stateOf(g, shown.status.replication_factor)];
  say(panel.querySelector('.note'), state || 'in order');
  panel.querySelector('.note').classList.toggle('alarm', !!state);
  keyed(panel.querySelector('.members'), g.replicas, (r) => r.node, (r) => el('li', {}, swatch(r.node), el('b', {}, r.node), el('span', { class: 'what' }),
    orderButton('Make leader', () => ({
      title: `Have ${r.node} lead group ${g.group}?`, text: 'The choice holds until the next rebalance. The group follows within seconds, and writes to it wait meanwhile.',
      order: { order: 'transfer_leader', group: g.group, node: r.node }, done: `Group ${g.group} is to be led by ${r.node}.`,
    }))), (li, r) => {
    say(li.querySelector('.what'), lagText(r, g));
    li.querySelector('button').disabled = r.node === g.leader || !r.voter || !!r.leaving || !!r.lost;
  });
  const until = lease?.expires_at ? Date.parse(lease.expires_at) - now() : 0;
  const facts = [
    ['Term', count(g.term)], ['Applied', count(g.applied)], ['Should lead', `${g.preferred || '–'}${g.pinned ? ', pinned' : ''}`],
    ['Archived by', lease?.holder ? `${lease.holder}, epoch ${lease.epoch}, ${until > 0 ? `${span(until)} left` : 'expired'}` : 'nobody'],
    ...(g.move ? [['Move', String(g.move)]] : []),
  ];
  keyed(panel.querySelector('.facts'), facts, ([name]) => name, ([name]) => el('div', {}, el('dt', {}, name), el('dd')), (row, [, value]) => say(row.lastChild, value));
}
