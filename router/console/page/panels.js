// The panels beside the map.
import { $, bytes, clock, count, el, keyed, latency, moment, rate, say, span } from './dom.js';
import { colourOf, swatch } from './palette.js';
import { orderButton } from './orders.js';

/** The key figures; append is the newest point of latency, if any. */
export function showFigures(c, append) {
  const s = c.status;
  const up = (c.nodes ?? []).filter((n) => n.alive && n.state !== 'removed').length;
  const there = (c.nodes ?? []).filter((n) => n.state !== 'removed').length;
  const lost = s.groups.no_quorum?.length ?? 0;
  const figures = [
    { name: 'Groups led', value: String(s.groups.led), of: '256', bad: s.groups.led < 256 },
    { name: 'No quorum', value: String(lost), bad: lost > 0 },
    { name: 'Nodes up', value: String(up), of: String(there), bad: up < there },
    { name: 'Moves', value: String(s.moves.under_way), of: s.moves.due ? `+${count(s.moves.due)} due` : '', plain: true },
    s.leases ? { name: 'Archived', value: String(s.leases), of: '256' } : { name: 'Archived', value: 'off' },
    { name: 'Appends', value: append ? rate(append.rate) : '–', of: '/s', plain: true },
    { name: 'p50', value: append ? latency(append.p50) : '–' },
    { name: 'p99', value: append ? latency(append.p99) : '–' },
  ];
  keyed($('figures'), figures, (f) => f.name, (f) => el('div', {}, el('dt', {}, f.name), el('dd', {}, el('b'), el('span'))), (box, f) => {
    box.classList.toggle('bad', !!f.bad);
    say(box.querySelector('b'), f.value);
    say(box.querySelector('span'), f.of ? (f.plain ? ` ${f.of}` : ` of ${f.of}`) : '');
  });
}

export function showNodes(c, now) {
  const s = c.status;
  const members = s.control.members ?? [];
  say($('control'), `Control: ${members.map((m) => (m.id === s.control.leader ? `${m.id} leads` : m.id)).join(', ')}`);
  const most = Math.max(1, ...(c.nodes ?? []).map((n) => n.replicas));
  keyed($('nodes'), c.nodes ?? [], (n) => n.id, makeNode, (row, n) => fillNode(row, n, now, most));
}

function makeNode(n) {
  const cell = (label, className, ...children) => el('td', { 'data-label': label, class: className }, ...children);
  return el('tr', {},
    el('th', { scope: 'row' }, swatch(n.id), el('span', { class: 'id', title: n.version ? `${n.id}, version ${n.version}` : n.id }, n.id)),
    cell('State', '', el('span', { class: 'tag' })), cell('Zone', 'zone'),
    cell('Replicas', 'n replicas', el('span', { class: 'value' }), el('span', { class: 'meter', 'aria-hidden': 'true' }, el('i'))),
    cell('Leads', 'n leads'), cell('Lag', 'n lag'),
    cell('Disk', 'disk', el('span', { class: 'value' }), el('span', { class: 'meter', 'aria-hidden': 'true' }, el('i'))),
    cell('Seen', 'n seen'),
    el('td', { class: 'operate' },
      orderButton('Drain', () => ({
        title: `Drain ${n.id}?`, text: `Every replica on ${n.id} is moved to another node, a few at a time. Messages are served all the while.`,
        rehearse: true, order: { order: 'drain', node: n.id }, done: `${n.id} is being drained.`,
      })),
      orderButton('Undrain', () => ({
        title: `Let ${n.id} take replicas again?`, text: 'Moves that have just begun are taken back, others finish.',
        order: { order: 'undrain', node: n.id }, done: `${n.id} takes replicas again.`,
      }))));
}

function fillNode(row, n, now, most) {
  row.classList.toggle('gone', n.state === 'removed');
  row.querySelector('.swatch').style.setProperty('--c', colourOf(n.id));
  const tag = row.querySelector('.tag');
  tag.dataset.state = n.state;
  say(tag, n.state === 'draining' && !n.alive ? 'draining, down' : n.state);
  say(row.querySelector('.zone'), n.zone || '–');
  say(row.querySelector('.replicas .value'), `${n.replicas}${n.lost ? `, ${n.lost} lost` : ''}`);
  row.querySelector('.replicas i').style.setProperty('width', `${(100 * n.replicas) / most}%`);
  row.querySelector('.replicas i').style.setProperty('background', colourOf(n.id));
  const leads = row.querySelector('.leads');
  say(leads, n.leaders === n.preferred ? String(n.leaders) : `${n.leaders} of ${n.preferred}`);
  leads.title = `It should lead ${n.preferred}.`;
  say(row.querySelector('.lag'), count(n.max_lag));
  row.querySelector('.lag').title = 'Log entries that its slowest replica has yet to apply';
  const room = n.disk_used + n.disk_free;
  const disk = row.querySelector('.disk');
  const full = room ? (100 * n.disk_used) / room : 0;
  say(disk.firstChild, room ? `${bytes(n.disk_used)} · ${full < 1 ? '<1' : Math.round(full)} %` : '–');
  disk.title = room ? `${bytes(n.disk_used)} used, ${bytes(n.disk_free)} free` : '';
  row.querySelector('.disk .meter').hidden = !room;
  row.querySelector('.disk i').style.setProperty('width', `${room ? Math.max(1, full) : 0}%`);
  say(row.querySelector('.seen'), n.last_seen ? `${span(now - Date.parse(n.last_seen))} ago` : '–');
  const [drain, undrain] = row.querySelectorAll('.operate button');
  drain.hidden = n.state === 'draining' || n.state === 'removed';
  undrain.hidden = n.state !== 'draining';
}

const PHASES = ['join', 'promote', 'leave'];
const DOING = { join: 'copying', promote: 'promoting', leave: 'leaving', withdraw: 'taken back' };

export function showMoves(c, now) {
  const moves = c.moves ?? [];
  const due = c.due ?? [];
  const s = c.status.moves;
  say($('moves-note'), `${count(s.finished)} finished, ${count(s.aborted)} aborted${due.length ? `, ${count(due.length)} planned` : ''}`);
  $('moves-empty').hidden = moves.length > 0;
  say($('moves-empty'), due.length ? `${count(due.length)} moves are planned and not started yet.` : 'No replica is being moved.');
  showRebalance(c.rebalance);
  keyed($('moves'), moves, (m) => m.id, (m) => el('li', {},
    el('span', { class: 'what' }, el('b', {}, `Group ${m.group}`), el('span', { class: 'route' }, ...routeOf(m))),
    el('span', { class: 'steps', role: 'img' }, ...PHASES.map(() => el('i'))),
    el('span', { class: 'phase' }), el('span', { class: 'for' }),
    orderButton('Abort', () => ({
      title: `Abort move ${m.id} of group ${m.group}?`, text: 'The newcomer leaves again. A move of a rebalance ends the rebalance.',
      order: { order: 'abort', move: m.id }, done: `Move ${m.id} is being taken back.`,
    }))), (li, m) => {
    const step = PHASES.indexOf(m.phase);
    const steps = li.querySelector('.steps');
    steps.classList.toggle('back', step < 0);
    [...steps.children].forEach((i, n) => {
      i.className = n < step ? 'done' : n === step ? 'now' : '';
    });
    steps.setAttribute('aria-label', step < 0 ? 'being taken back' : `step ${step + 1} of ${PHASES.length}`);
    say(li.querySelector('.phase'), DOING[m.phase] ?? m.phase);
    say(li.querySelector('.for'), `${m.reason}, ${span(now - Date.parse(m.started_at))}`);
  });
}

function routeOf(m) {
  const out = [];
  if (m.from) out.push(swatch(m.from), m.from);
  out.push(m.from && m.to?.length ? ' → ' : '');
  for (const to of m.to ?? []) out.push(swatch(to), to);
  if (!m.to?.length) out.push(' leaves');
  else if (!m.from) out.push(' joins');
  return out;
}

function showRebalance(r) {
  const box = $('rebalancing');
  box.hidden = !r;
  if (!r) return box.replaceChildren();
  const total = Math.max(r.planned, r.remaining);
  const done = total - r.remaining;
  if (!box.firstChild) {
    box.append(el('span', { class: 'text' }), el('progress', { 'aria-label': 'Rebalance' }), orderButton('Cancel', () => ({
      title: 'Start no more moves of the rebalance?', text: 'Moves under way finish.', order: { order: 'cancel_rebalance' }, done: 'No more moves are started.',
    })));
  }
  say(box.querySelector('.text'), `Rebalance: ${done} of ${total}`);
  const bar = box.querySelector('progress');
  bar.max = Math.max(1, total);
  bar.value = done;
}

export function showLeases(c, now) {
  const leases = c.leases ?? [];
  const held = new Map();
  let expired = 0;
  let soonest = Infinity;
  for (const l of leases) {
    const left = l.expires_at ? Date.parse(l.expires_at) - now : 0;
    if (!l.holder) continue;
    if (left <= 0) {
      expired++;
      continue;
    }
    soonest = Math.min(soonest, left);
    held.set(l.holder, (held.get(l.holder) ?? 0) + 1);
  }
  const total = [...held.values()].reduce((a, b) => a + b, 0);
  $('archiving').hidden = total + expired === 0;
  say($('leases-note'), total ? `${total} of 256 held${expired ? `, ${expired} expired` : ''}, the first ends in ${span(soonest)} unless renewed`
    : expired ? `${expired} expired` : 'nobody archives');
  const rows = [...held].sort((a, b) => (a[0] < b[0] ? -1 : 1)).map(([id, n]) => ({ id, n }));
  keyed($('leases'), rows, (r) => r.id, (r) => el('li', {}, swatch(r.id), el('span', { class: 'id' }, r.id), el('span', { class: 'meter', 'aria-hidden': 'true' }, el('i')), el('b')), (li, r) => {
    li.querySelector('i').style.setProperty('width', `${(100 * r.n) / 256}%`);
    li.querySelector('i').style.setProperty('background', colourOf(r.id));
    say(li.querySelector('b'), `${r.n} groups`);
  });
}

/** What happened, as a sentence around the things that it happened to. */
function tell(e) {
  const node = e.node ? el('b', {}, e.node) : 'a node';
  const group = e.group === undefined ? '' : ` of group ${e.group}`;
  const detail = e.detail ? `: ${e.detail}` : '';
  const sentences = {
    cluster_created: ['The cluster was created'],
    node_registered: ['Node ', node, ' joined'],
    node_lost_data: ['Node ', node, ' came back without its data'],
    node_silent: ['Node ', node, ' fell silent'],
    node_back: ['Node ', node, ' is back'],
    node_draining: ['Node ', node, ' is being drained'],
    node_active: ['Node ', node, ' takes replicas again'],
    node_removed: ['Node ', node, ' was removed'],
    groups_placed: ['Groups were placed', detail],
    leader_pinned: [e.node ? '' : 'A node', e.node ? node : '', ' is to lead', e.group === undefined ? ' a group' : ` group ${e.group}`],
    move_started: [`Move ${e.move}${group} started`, detail],
    move_finished: [`Move ${e.move}${group} finished`, detail],
    move_aborted: [`Move ${e.move}${group} was aborted`, detail],
    move_withdrawn: [`Move ${e.move}${group} was taken back`, detail],
    rebalance_started: ['A rebalance started', detail],
    rebalance_finished: ['The rebalance finished', detail],
    rebalance_cancelled: ['The rebalance was cancelled', detail],
  };
  return sentences[e.kind] ?? [e.kind.replaceAll('_', ' '), group, detail];
}

const ALARMS = new Set(['node_silent', 'node_lost_data', 'move_aborted', 'move_withdrawn']);

export function showEvents(c) {
  const events = [...(c.events ?? [])].reverse();
  keyed($('events'), events, (e) => e.id, (e) => el('li', { class: ALARMS.has(e.kind) ? 'alarm' : undefined },
    el('time', { datetime: e.at, title: moment(e.at) }, clock(e.at)), el('span', {}, ...tell(e))), () => {});
}
