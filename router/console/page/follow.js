// Follows a conversation from a cursor: over a WebSocket, or over Server-Sent
// Events where something on the way does not let those through. After any break
// it goes on behind the last sequence it was given, so its owner sees every
// message once and in order.
import { at, parse } from './dom.js';

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;
const REFUSED = 2; // WebSockets that did not open before the other way is taken

export class Follower {
  #path;
  #cursor;
  #on;
  #socket = null;
  #source = null;
  #timer = 0;
  #pause = FIRST_PAUSE;
  #refused = 0;
  #ended = false;
  #online = () => this.#soon(0);

  /**
   * cursor is the last sequence that is there already. on has message(m, seq),
   * gap(expected, actual), tombstone() and state(name): connecting, live or
   * waiting.
   */
  constructor(id, cursor, on) {
    this.#path = `v1/conversations/${encodeURIComponent(id)}`;
    this.#cursor = cursor;
    this.#on = on;
    addEventListener('online', this.#online);
    this.#connect();
  }

  close() {
    this.#ended = true;
    removeEventListener('online', this.#online);
    clearTimeout(this.#timer);
    this.#drop();
  }

  #drop() {
    if (this.#socket) {
      this.#socket.onclose = this.#socket.onmessage = this.#socket.onopen = null;
      this.#socket.close();
    }
    this.#source?.close();
    this.#socket = this.#source = null;
  }

  #connect() {
    this.#drop();
    this.#on.state('connecting');
    if (this.#refused < REFUSED) this.#overSocket();
    else this.#overEvents();
  }

  #overSocket() {
    const url = at(`${this.#path}/stream?from=${this.#cursor + 1}`);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    let opened = false;
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.onopen = () => {
      opened = true;
      this.#refused = 0;
      this.#live();
    };
    socket.onmessage = (e) => this.#take(e.data);
    socket.onclose = () => {
      if (!opened) this.#refused++;
      this.#wait();
    };
  }

  #overEvents() {
    const source = new EventSource(at(`${this.#path}/events?from=${this.#cursor + 1}`));
    this.#source = source;
    source.onopen = () => this.#live();
    for (const type of ['message', 'caught_up', 'tombstone', 'gap']) source.addEventListener(type, (e) => this.#take(e.data));
    source.onerror = () => {
      this.#refused = 0; // a WebSocket may work by now
      this.#wait();
    };
  }

  #live() {
    this.#pause = FIRST_PAUSE;
    this.#on.state('live');
  }

  #wait() {
    if (this.#ended) return;
    this.#drop();
    this.#on.state('waiting');
    this.#soon(this.#pause * (0.5 + Math.random() / 2));
    this.#pause = Math.min(LONGEST_PAUSE, this.#pause * 2);
  }

  #soon(ms) {
    if (this.#ended || this.#socket || this.#source) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), ms);
  }

  #take(text) {
    const event = parse(text);
    switch (event.type) {
      case 'message':
        if (event.seq <= this.#cursor) return;
        this.#cursor = event.seq;
        return this.#on.message({ ...event.message, seq: event.seq });
      case 'gap':
        this.#cursor = event.actual - 1;
        return this.#on.gap(event.expected, event.actual);
      case 'tombstone':
        return this.#on.tombstone();
    }
  }
}
