// What all pages share: preact with htm, small components, and the hooks that read from the gateway.

import { Component, createRef, Fragment, h, render } from "./vendor/preact.mjs";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.mjs";
import htm from "./vendor/htm.mjs";
import { visible } from "./format.js";

export { createRef, Fragment, render, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState };
export const html = htm.bind(h);

/** A sentence for the reader. `kind`: note, warning, error or success. Errors are read out at once. */
export function Notice({ kind = "note", children }) {
  return html`<p class=${`notice ${kind}`} role=${kind === "error" ? "alert" : "status"}>${children}</p>`;
}

/** An error of the gateway, with a button to ask again where that can help. */
export function Failure({ error, again }) {
  if (!error) return null;
  return html`<div class="notice error" role="alert">
    <span>${visible(error.message)}</span>
    ${again && html`<button type="button" class="small" onClick=${again}>Try again</button>`}
  </div>`;
}

/** An engine's or a task's state: a dot and the word, so that colour alone says nothing. */
export function State({ state, stopping = false }) {
  const known = String(state || "unknown");
  return html`<span class=${`state s-${known.toLowerCase()}`}>${known}${stopping && known !== "ShuttingDown" && !FINAL.has(known) ? ", stops" : ""}</span>`;
}

/** States that do not change any more. Stopped: an ended engine whose record alone is left, in which Linkis has ShuttingDown. */
export const FINAL = new Set(["Success", "Failed", "Stopped", "Succeed", "Cancelled", "Timeout", "Lost"]);

// A text in a cell may be an author's or an engine's. Elements are drawn as they are.
const shown = (value) => (typeof value === "string" ? visible(value) : value);

/** What cannot be drawn becomes a sentence in its place, and the rest of the page goes on. It is tried again with other
 * children under another `key`. */
export class Guard extends Component {
  componentDidCatch() {
    this.setState({ failed: true });
  }

  render({ children }, { failed }) {
    if (!failed) return children;
    return html`<${Notice} kind="error">This part cannot be shown: what came for it is not of the form that the page knows. The rest of the page is as it should be.<//>`;
  }
}

/** Pairs of a name and a value; those without a value are left out. */
export function Facts({ items }) {
  const given = items.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<dl class="facts">${given.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${shown(value)}</dd></div>`)}</dl>`;
}

/** A small table. `columns`: [heading, cell(row), class]; `caption` names it for a screen reader. */
export function Table({ caption, columns, rows, keyOf, empty }) {
  if (!rows.length) return html`<p class="muted">${empty}</p>`;
  return html`<div class="tablebox" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption class="hidden">${caption}</caption>
      <thead><tr>${columns.map(([name, , kind], column) => (name ? html`<th key=${column} scope="col" class=${kind}>${name}</th>` : html`<td key=${column}></td>`))}</tr></thead>
      <tbody>${rows.map((row, at) => html`<tr key=${keyOf ? keyOf(row) : at}>
        ${columns.map(([name, cell, kind], column) => html`<td key=${column} class=${kind}>${shown(cell(row))}</td>`)}</tr>`)}</tbody>
    </table>
  </div>`;
}

/** Tabs by the pattern of ARIA: arrow keys move, the chosen one alone is in the order of Tab. */
export function Tabs({ label, tabs, chosen, choose }) {
  const box = useRef(null);
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = tabs.findIndex(([name]) => name === chosen);
    const next = tabs[(at + step + tabs.length) % tabs.length][0];
    choose(next);
    box.current.querySelector(`[data-tab="${next}"]`).focus();
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} ref=${box} onKeyDown=${move}>
    ${tabs.map(([name, title]) => html`<button key=${name} type="button" role="tab" id=${`tab-${name}`} data-tab=${name}
      aria-selected=${String(name === chosen)} aria-controls="panel" tabindex=${name === chosen ? 0 : -1}
      onClick=${() => choose(name)}>${title}</button>`)}
  </div>`;
}

/** Where the element with the focus has left the document, the reader's place is the page's beginning. */
function keepPlace() {
  queueMicrotask(() => {
    if (document.activeElement === document.body) document.getElementById("main")?.focus({ preventScroll: true });
  });
}

/** A dialog over the page, for as long as it is drawn. After it the focus is where it was before. */
export function Dialog({ title, cancel, children }) {
  const dialog = useRef(null);
  useLayoutEffect(() => {
    const shown = dialog.current;
    shown.showModal();
    return () => {
      // A dialog that is only removed gives the focus to nobody.
      shown.close();
      keepPlace();
    };
  }, []);
  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onCancel=${(event) => (event.preventDefault(), cancel())}>
    <h2 id="dialog-title">${title}</h2>${children}
  </dialog>`;
}

/** Asks before something that cannot be taken back. `ask` resolves to the chosen verb, or to "" for Cancel. */
export function useConfirm() {
  const [question, setQuestion] = useState(null);
  const ask = (title, text, ...verbs) => new Promise((done) => setQuestion({ title, text, verbs, done }));
  const answer = (verb) => {
    setQuestion(null);
    question.done(verb);
  };
  const element =
    question &&
    html`<${Dialog} title=${question.title} cancel=${() => answer("")}>
      <p>${question.text}</p>
      <div class="buttons">
        <button type="button" onClick=${() => answer("")}>Cancel</button>
        ${question.verbs.map((verb) => html`<button key=${verb} type="button" class="danger" onClick=${() => answer(verb)}>${verb}</button>`)}
      </div>
    <//>`;
  return [element, ask];
}

/** Writes values of the page into its address; empty ones leave it. Back undoes it, unless it `replaces`. */
export function keep(values, { replaces = false } = {}) {
  const [path, text] = location.hash.split("?");
  const query = new URLSearchParams(text);
  const before = query.toString();
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, String(value));
    else query.delete(name);
  }
  if (query.toString() === before) return;
  history[replaces ? "replaceState" : "pushState"](null, "", `${path || "#/engines"}${query.size ? `?${query}` : ""}`);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

/** A text that is typed, [text, setText, own]. It follows the address: a link, Back, or what was kept as `name` there. Who
 * writes each letter there says so by `own.current`: a drawing may be of an address of before the last letters. */
export function useTyped(name, kept) {
  const [text, setText] = useState(kept);
  const own = useRef(kept);
  useEffect(() => {
    const now = new URLSearchParams(location.hash.split("?")[1]).get(name) ?? "";
    if (now !== own.current) setText(now);
    own.current = now;
  }, [name, kept]);
  return [text, setText, own];
}

/** A button that keeps the focus where there is nothing to do now: `go` is called where it is `on`. */
export function Step({ on, go, children }) {
  return html`<button type="button" class="small" aria-disabled=${String(!on)} onClick=${() => on && go()}>${children}</button>`;
}

/** Reads with `read(signal)` now and whenever `inputs` change; every `seconds` again while the tab is seen. */
export function useRead(read, inputs, seconds = 0) {
  const [found, setFound] = useState({ data: null, error: null, key: null });
  const [turn, setTurn] = useState(0);
  const key = JSON.stringify(inputs);
  useEffect(() => {
    const aborter = new AbortController();
    let timer = 0;
    const round = async () => {
      if (!document.hidden || !seconds) {
        try {
          const data = await read(aborter.signal);
          if (!aborter.signal.aborted) setFound({ data, error: null, key });
        } catch (error) {
          if (aborter.signal.aborted) return;
          setFound((before) => ({ data: before.key === key ? before.data : null, error, key }));
        }
      }
      if (seconds && !aborter.signal.aborted) timer = setTimeout(round, seconds * 1000);
    };
    round();
    return () => {
      aborter.abort();
      clearTimeout(timer);
    };
  }, [key, turn, seconds]);
  // An answer to other inputs is never shown as the one to these.
  const { data, error } = found.key === key ? found : { data: null, error: null };
  return { data, error, loading: found.key !== key, again: () => setTurn((before) => before + 1) };
}

/** Draws again after each change of the engines; returns the number of the change. */
export function useStore(store) {
  const [version, setVersion] = useState(store.version);
  useEffect(() => {
    const changed = () => setVersion(store.version);
    // What has changed between the first drawing and now was told to nobody.
    changed();
    return store.subscribe(changed);
  }, [store]);
  return version;
}

/** A button that keeps the focus while it does what it does, and shows the gateway's refusal beside it. */
export function Action({ children, run, kind = "", disabled = false, done, title }) {
  const [state, setState] = useState({ busy: false, error: null });
  const alive = useRef(true);
  const button = useRef(null);
  useLayoutEffect(() => () => {
    alive.current = false;
    if (document.activeElement === button.current) keepPlace();
  }, []);
  const click = async () => {
    if (state.busy) return;
    setState({ busy: true, error: null });
    let error = null;
    try {
      await run();
    } catch (failed) {
      error = failed;
    }
    if (alive.current) setState({ busy: false, error });
    if (!error && done) done();
  };
  return html`<span class="action">
    <button ref=${button} type="button" class=${kind} disabled=${disabled} aria-disabled=${String(state.busy)} title=${title} onClick=${click}>${children}</button>
    ${state.error && html`<span class="notice error inline" role="alert">${visible(state.error.message)}</span>`}
  </span>`;
}
