// The viewer of conversations: a list by prefix, and one of them with its live
// tail.
import { $, Failure, ask, count, el, keyed, moment, say, span } from './dom.js';
import { Follower } from './follow.js';

const PAGE = 50;
const KEPT = 500; // messages on the page, unless more were asked for
const KEPT_AT_MOST = 5_000;
const NEAR = 60; // pixels from the end that count as the end

let listed = [];
let next = null;
let listing = null; // aborts the request under way
let open = null; // the conversation that is shown

export function startViewer() {
  let typing = 0;
  $('search').addEventListener('submit', (e) => {
    e.preventDefault();
    list();
  });
  $('prefix').addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(list, 200);
  });
  $('list-again').addEventListener('click', () => list());
  $('list-more').addEventListener('click', () => list(true));
  $('earlier').addEventListener('click', earlier);
  $('jump').addEventListener('click', toEnd);
  $('log').addEventListener('scroll', () => {
    if (atEnd()) unread(0);
  });
}

export function showConversations(visible, id) {
  $('conversations').classList.toggle('reading', !!id);
  if (!visible) return leave();
  if (!listed.length && !listing) list();
  if (id !== open?.id) {
    leave();
    if (id) show(id);
  }
  drawList();
}

// The list.

async function list(more = false) {
  listing?.abort();
  const mine = (listing = new AbortController());
  const query = new URLSearchParams({ limit: PAGE, prefix: $('prefix').value });
  if (more && next) query.set('after', next);
  say($('list-note'), more ? '' : 'Looking…');
  $('list-note').hidden = more;
  try {
    const { body } = await ask(`v1/conversations?${query}`, { signal: mine.signal });
    if (mine.signal.aborted) return;
    listed = more ? [...listed, ...body.conversations] : body.conversations;
    next = body.next ?? null;
    say($('list-note'), listed.length ? '' : $('prefix').value ? 'No conversation begins like this.' : 'There is no conversation yet.');
  } catch (error) {
    if (mine.signal.aborted) return;
    say($('list-note'), explain(error));
  }
  if (listing === mine) listing = null;
  $('list-note').hidden = !$('list-note').textContent;
  $('list-more').hidden = !next;
  drawList();
}

function drawList() {
  keyed($('list'), listed, (c) => c.id, (c) => el('li', {}, el('a', { href: `#/conversations/${encodeURIComponent(c.id)}` },
    el('span', { class: 'id' }, c.id), el('span', { class: 'sub' }))), (li, c) => {
    const a = li.firstChild;
    if (c.id === open?.id) a.setAttribute('aria-current', 'true');
    else a.removeAttribute('aria-current');
    say(a.lastChild, `${count(c.last_seq)} ${c.last_seq === 1 ? 'message' : 'messages'}${c.tombstoned ? ', closed' : ''} · ${span(Date.now() - Date.parse(c.updated_at))} ago`);
  });
}

const explain = (error) => (error instanceof Failure ? error.message : 'The server cannot be reached.');

// One conversation.

function leave() {
  open?.follower?.close();
  open?.loading.abort();
  open = null;
  live('connecting');
  $('messages').replaceChildren();
  for (const id of ['transcript-head', 'log', 'jump', 'earlier']) $(id).hidden = true;
  $('transcript-empty').hidden = false;
  say($('transcript-empty'), 'Choose a conversation to read it and to follow what is appended.');
}

async function show(id) {
  const mine = (open = { id, follower: null, loading: new AbortController(), first: 0, last: 0, kept: KEPT, unread: 0, closed: false, about: null });
  say($('transcript-empty'), 'Loading…');
  const path = `v1/conversations/${encodeURIComponent(id)}`;
  try {
    const options = { signal: mine.loading.signal };
    const [{ body: about }, { body: tail }] = await Promise.all([ask(path, options), ask(`${path}/tail?limit=${PAGE}`, options)]);
    if (open !== mine) return;
    mine.about = about;
    mine.closed = about.tombstoned;
    mine.first = tail.messages[0]?.seq ?? 1;
    mine.last = tail.messages.at(-1)?.seq ?? 0;
    $('messages').replaceChildren(...tail.messages.map(row));
  } catch (error) {
    if (open === mine) say($('transcript-empty'), explain(error));
    return;
  }
  $('transcript-empty').hidden = true;
  $('transcript-head').hidden = $('log').hidden = false;
  $('earlier').hidden = mine.first <= 1;
  say($('transcript-title'), id);
  head();
  toEnd();
  mine.follower = new Follower(id, mine.last, {
    message: (m) => open === mine && arrived(m),
    gap: (expected, actual) => open === mine && gap(expected, actual),
    tombstone: () => {
      if (open !== mine) return;
      mine.closed = true;
      head();
    },
    state: (state) => open === mine && live(state),
  });
}

function head() {
  const facts = [`${count(open.last)} ${open.last === 1 ? 'message' : 'messages'}`];
  if (open.about.archived_seq) facts.push(`archived to ${count(open.about.archived_seq)}`);
  if (open.closed) facts.push('closed for writing');
  const metadata = JSON.stringify(open.about.metadata);
  if (metadata !== '{}') facts.push(metadata);
  say($('transcript-note'), facts.join(' · '));
  $('transcript-note').title = metadata === '{}' ? '' : metadata;
}

function live(state) {
  $('live').dataset.state = state;
  say($('live-text'), { connecting: 'Connecting', live: 'Live', waiting: 'Reconnecting' }[state]);
}

function arrived(m) {
  const follow = atEnd();
  open.last = m.seq;
  const item = row(m);
  item.classList.add('new');
  $('messages').append(item);
  while (follow && $('messages').children.length > open.kept) {
    $('messages').firstElementChild.remove();
    const first = $('messages').firstElementChild;
    open.first = Number(first.dataset.seq ?? open.first);
    $('earlier').hidden = false;
  }
  head();
  if (follow) toEnd();
  else unread(open.unread + 1);
}

function gap(expected, actual) {
  $('messages').append(el('li', { class: 'gap' }, `Messages ${count(expected)} to ${count(actual - 1)} are no longer held.`));
}

async function earlier() {
  const mine = open;
  const box = $('log');
  $('earlier').disabled = true;
  try {
    const { body } = await ask(`v1/conversations/${encodeURIComponent(mine.id)}/tail?limit=${PAGE}&before=${mine.first}`, { signal: mine.loading.signal });
    if (open !== mine) return;
    const fromEnd = box.scrollHeight - box.scrollTop;
    $('messages').prepend(...body.messages.map(row));
    box.scrollTop = box.scrollHeight - fromEnd;
    mine.first = body.messages[0]?.seq ?? 1;
    mine.kept = Math.min(KEPT_AT_MOST, Math.max(KEPT, $('messages').children.length));
    $('earlier').hidden = mine.first <= 1 || !body.messages.length || $('messages').children.length >= KEPT_AT_MOST;
  } catch (error) {
    if (open === mine) say($('live-text'), explain(error));
  } finally {
    $('earlier').disabled = false;
  }
}

function atEnd() {
  const box = $('log');
  return box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
}

function toEnd() {
  const box = $('log');
  box.scrollTop = box.scrollHeight;
  unread(0);
}

function unread(n) {
  if (open) open.unread = n;
  $('jump').hidden = !n;
  say($('jump'), n ? `${count(n)} new ${n === 1 ? 'message' : 'messages'} ↓` : '');
}

// Messages.

function row(m) {
  const role = String(m.role);
  return el('li', { class: 'message', 'data-seq': m.seq, 'data-role': ROLES.has(role) ? role : 'other' },
    el('p', { class: 'by' }, el('b', {}, role), el('span', {}, `#${m.seq}`), el('time', { datetime: m.inserted_at }, moment(m.inserted_at)),
      m.token_count ? el('span', {}, `${count(m.token_count)} tokens`) : '', m.id ? el('span', { class: 'own', title: 'id of the message' }, m.id) : ''),
    ...m.parts.map(part),
    m.metadata && Object.keys(m.metadata).length ? folded('metadata', m.metadata) : '');
}

const ROLES = new Set(['user', 'assistant', 'system', 'tool']);

function part(p) {
  if ((p.type !== 'reasoning' && p.type !== 'text') || typeof p.text !== 'string') return folded(p.type, p);
  const { type, text, ...rest } = p;
  return el('div', {}, el('p', { class: `text ${type}` }, text), Object.keys(rest).length ? folded('more', rest) : '');
}

function folded(name, value) {
  const text = JSON.stringify(value, null, 2);
  const box = el('details', {}, el('summary', {}, el('span', {}, name), el('code', {}, brief(value))));
  // Drawn when it is opened: a message can be a megabyte.
  box.addEventListener('toggle', () => {
    if (box.open && box.children.length === 1) box.append(el('pre', { tabindex: 0 }, text));
  });
  return box;
}

function brief(value) {
  const { type, ...rest } = value;
  const text = JSON.stringify(rest);
  return text.length > 120 ? `${text.slice(0, 120)}…` : text;
}
