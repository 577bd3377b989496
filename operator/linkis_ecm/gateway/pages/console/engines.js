// The list of engines: filtered and sorted here, from the stream's rows. Only rows in sight are in the document.

import { useNow } from "./clock.js";
import { age, bytes, cores, held, inWords, moment, several, visible, words } from "./format.js";
import { addressOf, passes } from "./store.js";
import { html, keep, Notice, State, useEffect, useLayoutEffect, useMemo, useRef, useState, useStore, useTyped } from "./ui.js";

const ROW = 34;
// Rows above and below those in sight, so that a scroll shows no gap.
const SPARE = 10;
export const ORDER = ["Starting", "Unlock", "Locked", "Idle", "Busy", "Running", "ShuttingDown", "Failed", "Success"];

// Linkis's columns (instance, label, user, type, state, resources, start) and ours.
const COLUMNS = [
  { id: "name", title: "Engine", value: (row) => row.key, cell: (row) => html`<a href=${`#/engine/${addressOf(row)}`} tabindex="-1">${row.name}</a>` },
  { id: "status", title: "State", value: (row) => ORDER.indexOf(row.status), cell: (row, now) => html`<${State} state=${row.status} stopping=${row.stopping} />${held(row.claim, now) ? html`<span class="muted">, held</span>` : null}` },
  { id: "type", title: "Type", value: (row) => `${row.engineType} ${row.engineVersion}`, cell: (row) => `${row.engineType} ${row.engineVersion}` },
  { id: "user", title: "User", value: (row) => row.user, cell: (row) => row.user },
  { id: "creator", title: "Creator", value: (row) => row.creator, cell: (row) => row.creator },
  { id: "cpu", title: "Cores", number: true, value: (row) => row.cpuMilli, cell: (row) => cores(row.cpuMilli) },
  { id: "memory", title: "Memory", number: true, value: (row) => row.memoryBytes, cell: (row) => (row.memoryBytes ? bytes(row.memoryBytes) : "") },
  { id: "start", title: "Start took", number: true, value: (row) => row.readyMillis ?? -1, cell: (row) => (row.readyMillis === null ? "" : `${(row.readyMillis / 1000).toFixed(1)} s`) },
  { id: "created", title: "Age", number: true, value: (row) => -Date.parse(row.created ?? 0), cell: (row, now) => age(row.created, now) },
  { id: "node", title: "Node", value: (row) => row.node ?? "", cell: (row) => row.node ?? "" },
  { id: "reason", title: "Reason", value: (row) => row.reason, cell: (row) => row.reason },
];

/** The rows that pass the filter, in order. Pure. */
export function chosenRows(rows, { text, states, sort, down }) {
  const searched = words(text);
  const found = rows.filter((row) => (!states.size || states.has(row.status)) && passes(row, searched));
  const { value } = COLUMNS.find((column) => column.id === sort) ?? COLUMNS[0];
  const keyed = found.map((row) => [value(row), row]);
  keyed.sort(([a, one], [b, other]) => (a < b ? -1 : a > b ? 1 : one.key < other.key ? -1 : 1));
  const sorted = keyed.map(([, row]) => row);
  return down ? sorted.reverse() : sorted;
}

function Grid({ rows, sort, down, sortBy, now }) {
  const box = useRef(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const [active, setActive] = useState(-1);

  useLayoutEffect(() => {
    const measured = new ResizeObserver(([entry]) => setHeight(entry.contentRect.height));
    measured.observe(box.current);
    return () => measured.disconnect();
  }, []);

  const at = Math.min(active, rows.length - 1);
  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const last = Math.min(rows.length, Math.ceil((top + height) / ROW) + SPARE);
  const shown = rows.slice(first, last).map((row, index) => [row, first + index]);
  // The active row is announced by its id, so it stays in the document.
  if (at >= 0 && (at < first || at >= last)) shown.push([rows[at], at]);

  const go = (to) => {
    const next = Math.max(0, Math.min(rows.length - 1, to));
    setActive(next);
    const view = box.current;
    const page = view.clientHeight - ROW;
    if (next * ROW < view.scrollTop) view.scrollTop = next * ROW;
    else if ((next + 1) * ROW > view.scrollTop + page) view.scrollTop = (next + 1) * ROW - page;
  };
  const keys = (event) => {
    if (event.target !== box.current) return;
    const page = Math.max(1, Math.floor(height / ROW) - 2);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 }[event.key];
    if (to !== undefined && rows.length) {
      event.preventDefault();
      go(to);
    } else if (event.key === "Enter" && at >= 0) {
      location.hash = `#/engine/${addressOf(rows[at])}`;
    }
  };

  return html`<div class="grid" role="grid" aria-label="Engines" aria-rowcount=${rows.length + 1} aria-colcount=${COLUMNS.length}
      tabindex="0" ref=${box} onKeyDown=${keys} onScroll=${(event) => setTop(event.target.scrollTop)}
      aria-activedescendant=${at >= 0 ? `row-${at}` : null}>
    <div class="row head" role="row" aria-rowindex="1">
      ${COLUMNS.map(({ id, title, number }) => html`<div key=${id} role="columnheader" class=${`c-${id} ${number ? "number" : ""}`}
        aria-sort=${sort === id ? (down ? "descending" : "ascending") : "none"}>
        <button type="button" onClick=${() => sortBy(id)}>${title}<span aria-hidden="true">${sort === id ? (down ? " ↓" : " ↑") : ""}</span></button></div>`)}
    </div>
    <div class="rows" role="rowgroup" style=${{ height: `${rows.length * ROW}px` }}>
      ${shown.map(([row, index]) => html`<div key=${row.key} id=${`row-${index}`} role="row" aria-rowindex=${index + 2}
        class=${`row ${index === at ? "active" : ""}`} aria-selected=${String(index === at)} style=${{ transform: `translateY(${index * ROW}px)` }}
        onClick=${() => setActive(index)} onDblClick=${() => (location.hash = `#/engine/${addressOf(row)}`)}>
        ${COLUMNS.map(({ id, number, cell }) => {
          const drawn = cell(row, now);
          const shownCell = typeof drawn === "string" ? visible(drawn) : drawn;
          return html`<div key=${id} role="gridcell" class=${`c-${id} ${number ? "number" : ""}`}
            title=${id === "reason" ? visible(inWords(row.message)) : id === "status" ? held(row.claim, now) || null : id === "name" ? `${row.key}\n${row.serviceInstance}` : id === "created" ? moment(row.created) : typeof shownCell === "string" ? shownCell : null}>${shownCell}</div>`;
        })}
      </div>`)}
    </div>
  </div>`;
}

export function Engines({ store, query }) {
  const [text, setText, own] = useTyped("q", query.get("q") ?? "");
  const chosen = query.get("state") ?? "";
  const states = useMemo(() => new Set(chosen.split(",").filter((state) => ORDER.includes(state))), [chosen]);
  const sort = query.get("sort") ?? "created";
  const down = query.get("down") === "1";
  const version = useStore(store);
  const now = useNow(5);
  const field = useRef(null);

  useEffect(() => {
    const slash = (event) => {
      if (event.key !== "/" || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
      event.preventDefault();
      field.current.focus();
    };
    addEventListener("keydown", slash);
    return () => removeEventListener("keydown", slash);
  }, []);
  // There is no entry in the history for each letter.
  useEffect(() => {
    own.current = text;
    keep({ q: text }, { replaces: true });
  }, [text]);

  const all = useMemo(() => [...store.rows.values()], [version]);
  const rows = useMemo(() => chosenRows(all, { text, states, sort, down }), [all, text, states, sort, down]);
  const counts = useMemo(() => {
    const found = new Map();
    for (const row of all) found.set(row.status, (found.get(row.status) ?? 0) + 1);
    return found;
  }, [all]);
  const toggle = (state) => {
    const next = new Set(states);
    if (!next.delete(state)) next.add(state);
    keep({ state: [...next].join(",") });
  };
  const sortBy = (id) => keep({ sort: id === "created" ? "" : id, down: id === sort && !down ? "1" : "" }, { replaces: true });

  return html`
    <h1>Engines</h1>
    <div class="bar">
      <input type="search" aria-label="Filter engines" ref=${field} value=${text} onInput=${(event) => setText(event.target.value)}
        placeholder="name, user:alice, type:python, a label …   ( / )" autocomplete="off" spellcheck="false" />
      <div class="chips" role="group" aria-label="States">
        ${ORDER.filter((state) => counts.has(state) || states.has(state)).map((state) => html`<button key=${state} type="button" class="chip"
          aria-pressed=${String(states.has(state))} onClick=${() => toggle(state)}><${State} state=${state} /> ${counts.get(state) ?? 0}</button>`)}
      </div>
      <span class="muted count" role="status">${rows.length === all.length ? several(all.length, "engine") : `${rows.length} of ${several(all.length, "engine")}`}</span>
    </div>
    ${store.problem && html`<${Notice} kind="warning">${store.problem} What is shown may be old; the console connects again by itself.<//>`}
    ${!store.live && !all.length && !store.problem ? html`<p class="muted">Reading the engines …</p>` : null}
    ${store.live && !all.length ? html`<p class="muted">You have no engines. The catalogue starts one.</p>` : null}
    ${all.length > 0 && !rows.length ? html`<p class="muted">No engine passes this filter: take words or states away.</p>` : null}
    ${rows.length > 0 && html`<${Grid} rows=${rows} sort=${sort} down=${down} sortBy=${sortBy} now=${now} />`}`;
}
