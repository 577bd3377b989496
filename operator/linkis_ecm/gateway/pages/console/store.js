// All engines that the user may see, kept current by one stream of the gateway. Pages subscribe; none polls.

import { CallError, events } from "./api.js";
import { pause, streamed } from "./places.js";

// Seconds to the next attempt after a stream broke: 1, 2, 4 … 30.
const PATIENCE_MAX = 30;
// A stream that is asked for and does not begin in so many seconds is none: what is shown is not live.
const LATE_SECONDS = 5;
// A stream that lasts for less has failed, whatever it says: the next one comes later, and later again.
const REGULAR_SECONDS = 10;
// Where other tabs have all places for streams: seconds between two readings of all engines, and of one at most.
export const TURN_SECONDS = 10;
const BRIEF_SECONDS = 20;

export class EngineStore {
  constructor() {
    this.rows = new Map();
    this.live = false;
    // Whether it is read every TURN_SECONDS, as other tabs hold the streams.
    this.shared = false;
    // A sentence where the stream is broken, and when it is tried again.
    this.problem = "";
    this.version = 0;
    this.aborter = new AbortController();
    this.listeners = new Set();
    this.waiting = false;
  }

  /** Calls `listener` after changes, once a frame at most. */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  changed() {
    this.version += 1;
    if (this.waiting) return;
    this.waiting = true;
    // A hidden tab has no frames.
    const soon = document.hidden ? (next) => setTimeout(next, 250) : requestAnimationFrame;
    soon(() => {
      this.waiting = false;
      for (const listener of [...this.listeners]) listener();
    });
  }

  /** The engine of `namespace/name`, of a uid or of a ticket. An author chooses a ticket, and may choose one that another engine
   * has. The gateway's rule then holds here, too: who was accepted before who was not, and the elder one. */
  get(id) {
    if (id.includes("/")) return this.rows.get(id) ?? null;
    const found = [...this.rows.values()].filter((row) => row.uid === id || row.engineId === id || row.ticketId === id);
    const rank = (row) => `${Number(row.uid !== id)} ${Number(isRefused(row))} ${Number(row.status === "Starting")} ${row.created}`;
    return found.sort((one, other) => (rank(one) < rank(other) ? -1 : 1))[0] ?? null;
  }

  stop() {
    this.aborter.abort();
    this.listeners.clear();
  }

  async run() {
    const { signal } = this.aborter;
    let patience = 1;
    while (!signal.aborted) {
      const began = performance.now();
      let wait = 0;
      try {
        const how = await streamed((cut, brief) => this.read(cut, brief), { signal, seconds: BRIEF_SECONDS, forEngines: true });
        if (how === "hidden") {
          // Nobody has seen it meanwhile. It is read anew as soon as somebody looks.
          this.live = false;
          this.changed();
          continue;
        }
        if (how === "brief") this.failed("The gateway is slow, and other tabs of this browser hold its streams: close some of them.");
        else if (this.shared) wait = TURN_SECONDS;
        // The gateway ends streams with their login and its rights, and when it stops: its viewers do not all come back at once.
        else if (performance.now() - began > REGULAR_SECONDS * 1000) wait = Math.random();
        else this.failed("The stream of the gateway ends as soon as it begins: the gateway may be stopping.");
        this.changed();
      } catch (error) {
        if (signal.aborted) return;
        this.failed(error.message);
      }
      if (this.shared || performance.now() - began > REGULAR_SECONDS * 1000) patience = 1;
      if (!wait) {
        wait = patience * (0.75 + Math.random() / 2);
        patience = Math.min(2 * patience, PATIENCE_MAX);
      }
      await pause(wait, signal);
    }
  }

  /** Reads one stream to its end, or until all engines have been read where it is brief. Raises CallError. */
  async read(signal, brief) {
    this.shared = brief;
    const late = setTimeout(() => this.failed("The gateway does not answer: it may be starting anew, or the network is slow."), LATE_SECONDS * 1000);
    try {
      for await (const { event, data } of events("watchEngines", {}, signal)) {
        clearTimeout(late);
        if (event === "engines") this.apply(data);
        if (event === "end" || (brief && event === "engines" && data.live)) return;
      }
    } finally {
      clearTimeout(late);
    }
    throw new CallError("The stream of the gateway broke off.");
  }

  failed(sentence) {
    this.live = false;
    this.problem = sentence;
    this.changed();
  }

  apply({ reset, live, gone, rows }) {
    // What was there stays to be seen until the new list is whole.
    if (reset) this.next = new Map();
    const target = this.next ?? this.rows;
    for (const [namespace, name] of gone) target.delete(`${namespace}/${name}`);
    for (const row of rows) {
      row.key = `${row.namespace}/${row.name}`;
      row.text = searched(row);
      target.set(row.key, row);
    }
    if (this.next && (live || !this.rows.size)) this.rows = this.next;
    if (live) {
      this.next = null;
      this.live = true;
      this.problem = "";
    }
    this.changed();
  }
}

const isRefused = (row) => row.status === "Failed" && row.reason === "InvalidSpec";

/** The part of an address that names a row's engine. Its ticket does not: see EngineStore.get. */
export const addressOf = (row) => `${encodeURIComponent(row.namespace)}/${encodeURIComponent(row.name)}`;

const FIELDS = {
  name: "name", namespace: "namespace", ns: "namespace", user: "user", type: "engineType", version: "engineVersion",
  state: "status", reason: "reason", node: "node", tenant: "tenant", creator: "creator", ticket: "engineId",
  instance: "serviceInstance",
};

function searched(row) {
  const labels = Object.entries(row.labels ?? {}).map(([name, value]) => `${name}=${value}`);
  return [row.key, row.user, row.creator, row.tenant, row.engineType, row.engineVersion, row.status, row.reason, row.node, row.engineId, row.serviceInstance, ...labels]
    .join("\u0001")
    .toLowerCase();
}

/** Whether the row passes each of the words; `user:alice` asks one field. */
export function passes(row, words) {
  return words.every((word) => {
    const [, field, value] = /^([a-z]+):(.+)$/.exec(word) ?? [];
    if (field && FIELDS[field]) return String(row[FIELDS[field]] ?? "").toLowerCase().includes(value);
    return row.text.includes(word);
  });
}
