// Orders of an operator. The token is kept in this tab only, and sent with
// orders only.
import { $, Failure, ask, el } from './dom.js';

const KEY = 'fastpaca-operator';
let token = null;
let after = () => {};

export function startOrders(onDone) {
  after = onDone;
  try {
    token = sessionStorage.getItem(KEY);
  } catch {
    token = null; // it lives as long as the page then
  }
  $('unlock').addEventListener('click', () => (token ? forget() : unlock()));
  $('dialog-no').addEventListener('click', () => $('dialog').close());
  $('rebalance').addEventListener('click', rebalance);
  mark();
}

/** Tells whether this console takes orders at all. */
export function allowOrders(allowed) {
  $('unlock').hidden = !allowed;
  if (!allowed && token) forget();
}

function mark() {
  document.body.classList.toggle('operating', !!token);
  $('unlock').title = token ? 'Forget the token' : '';
  $('unlock').textContent = token ? 'Lock' : 'Operate…';
}

function keep(value) {
  token = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Not kept beyond this page.
  }
  mark();
}

function forget() {
  keep(null);
  toast('The token is forgotten. This console looks only.');
}

async function send(order, withToken = token) {
  const { body } = await ask('console/api/orders', {
    method: 'POST', headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${withToken}` }, body: JSON.stringify(order),
  });
  return body;
}

let fading = 0;

export function toast(text, bad = false) {
  const box = $('toast');
  box.textContent = text;
  box.classList.toggle('bad', bad);
  box.hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => (box.hidden = true), bad ? 12_000 : 5_000);
}

/** Shows the dialog. yes runs when it is confirmed, and keeps it open by throwing. */
function dialog(title, body, label, yes) {
  const box = $('dialog');
  $('dialog-title').textContent = title;
  $('dialog-body').replaceChildren(...body);
  const problem = $('dialog-problem');
  problem.hidden = true;
  const button = $('dialog-yes');
  button.textContent = label;
  button.disabled = !yes;
  $('dialog-form').onsubmit = async (e) => {
    e.preventDefault();
    if (!yes) return;
    button.disabled = true;
    try {
      await yes();
      box.close();
    } catch (error) {
      if (error instanceof Failure && error.status === 401 && token) keep(null);
      problem.textContent = error instanceof Failure ? error.message : 'The server cannot be reached.';
      problem.hidden = false;
    }
    button.disabled = false;
  };
  if (!box.open) box.showModal();
}

function unlock() {
  if (!isSecureContext) {
    return dialog('Operate this cluster', [el('p', {}, 'This page was loaded over plain HTTP, on which a token could be read on its way. Open it over HTTPS or from this machine, or use '), el('p', {}, el('code', {}, 'fastpaca cluster'))], 'Unlock', null);
  }
  const input = el('input', { type: 'password', id: 'token', autocomplete: 'off', spellcheck: 'false', required: true, maxlength: 4096 });
  dialog('Operate this cluster', [
    el('p', {}, 'With the cluster’s token you can drain nodes, rebalance, transfer leaders and abort moves. It is kept in this tab until you close it.'),
    el('label', { for: 'token' }, 'Token of the cluster'), input,
  ], 'Unlock', async () => {
    const given = input.value;
    // A header takes visible ASCII only; no other token could be the cluster's.
    if (!/^[\x21-\x7e]+$/.test(given)) throw new Failure(401, { message: 'This is not the cluster’s token.' });
    try {
      await send({ order: 'check' }, given);
    } catch (error) {
      if (error instanceof Failure && error.status === 401) throw new Failure(401, { message: 'This is not the cluster’s token.' });
      throw error;
    }
    keep(given);
    toast('You can give orders now.');
  });
}

/** A button that is there for operators. describe tells what it is to order. */
export function orderButton(label, describe) {
  return el('button', { type: 'button', class: 'small operate', onclick: () => confirm(label, describe()) }, label);
}

async function confirm(label, { title, text, rehearse, order, done }) {
  if (rehearse) {
    try {
      await send({ ...order, dry_run: true });
    } catch (error) {
      return refuse(error);
    }
  }
  dialog(title, [el('p', {}, text)], label, async () => {
    await send(order);
    toast(done);
    after();
  });
}

function refuse(error) {
  if (error instanceof Failure && error.status === 401) keep(null);
  toast(error instanceof Failure ? error.message : 'The server cannot be reached.', true);
}

async function rebalance() {
  let plan;
  try {
    ({ plan } = await send({ order: 'rebalance', dry_run: true }));
  } catch (error) {
    return refuse(error);
  }
  const moves = plan?.length ?? 0;
  const text = moves ? `${moves} replicas would be moved, a few at a time. Messages are served all the while.` : 'Replicas are even already; only leaders may change.';
  const shown = (plan ?? []).slice(0, 8).map((r) => el('li', {}, `Group ${r.group}: ${r.from || '–'} → ${r.to || '–'}`));
  if (moves > shown.length) shown.push(el('li', {}, `and ${moves - shown.length} more`));
  dialog('Rebalance the cluster?', [el('p', {}, text), shown.length ? el('ul', { class: 'plan' }, ...shown) : '', el('p', {}, 'It ends pins of leaders.')], 'Rebalance', async () => {
    await send({ order: 'rebalance' });
    toast('The rebalance has started.');
    after();
  });
}
