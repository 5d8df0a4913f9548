// Small helpers around the DOM and numbers. Text always becomes text nodes:
// nothing that the server or a conversation says is ever parsed as HTML.

export const $ = (id) => document.getElementById(id);

/** Makes an element. Properties that begin with "on" are listeners. */
export function el(tag, props = {}, ...children) {
  const node = tag === 'svg' || SVG.has(tag) ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}
const SVG = new Set(['path', 'line', 'text', 'g', 'rect', 'circle']);

/** Sets the text of an element if it is another one, so that a reader does not hear it twice. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Makes the children of parent those of items, in order. Elements are kept by
 * key, so that what has the focus keeps it. make returns an element, update
 * fills it in.
 */
export function keyed(parent, items, key, make, update) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = before.get(name);
    if (child) before.delete(name);
    else {
      child = make(item);
      child.dataset.key = name;
    }
    update(child, item);
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  for (const gone of before.values()) gone.remove();
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

export function bytes(n) {
  let unit = 0;
  while (n >= 1024 && unit < UNITS.length - 1) {
    n /= 1024;
    unit++;
  }
  return `${n >= 100 || unit === 0 ? Math.round(n) : n.toFixed(1)} ${UNITS[unit]}`;
}

export const count = (n) => n.toLocaleString('en');

/** A duration in milliseconds, as short as people say it. */
export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

/** A latency in seconds. */
export function latency(seconds) {
  if (!seconds) return '–';
  const ms = seconds * 1000;
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10000 ? 0 : 1)} s`;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

export function rate(n) {
  if (!n) return '0';
  return n >= 100 ? count(Math.round(n)) : n >= 10 ? n.toFixed(0) : n.toFixed(1);
}

export const clock = (time) => new Date(time).toLocaleTimeString('en-GB');

/** The date too, unless it is today's. */
export function moment(time) {
  const date = new Date(time);
  return date.toDateString() === new Date().toDateString() ? clock(date) : `${date.toLocaleDateString('en-CA')} ${clock(date)}`;
}

const root = new URL('./', document.baseURI);

/** A path of this server, whatever prefix a proxy puts in front. */
export const at = (path) => new URL(path, root);

/** A failure that the server explained. */
export class Failure extends Error {
  constructor(status, body) {
    super(body.message ?? `The server answered ${status}.`);
    this.status = status;
    this.code = body.error ?? '';
  }
}

/**
 * Parses JSON and keeps numbers that a double cannot hold as they were sent,
 * where the browser can tell.
 */
export function parse(text) {
  if (!JSON.rawJSON) return JSON.parse(text);
  return JSON.parse(text, (_, value, context) =>
    typeof value === 'number' && context?.source !== undefined && String(value) !== context.source ? JSON.rawJSON(context.source) : value);
}

/** Requests JSON. What is not a success is thrown as a Failure. */
export async function ask(path, options = {}) {
  const response = await fetch(at(path), { cache: 'no-store', credentials: 'same-origin', ...options });
  const text = await response.text();
  let body = {};
  try {
    body = parse(text);
  } catch {
    if (response.ok) throw new Failure(response.status, { message: 'The answer is not JSON.' });
  }
  if (!response.ok) throw new Failure(response.status, body);
  return { body, headers: response.headers };
}
