// Runs code in an engine: an editor, the run types of its catalogue entry, outputs as they come, interrupt.

import { call } from "./api.js";
import { visible } from "./format.js";
import { parts } from "./highlight.js";
import { Task } from "./outputs.js";
import { addressOf } from "./store.js";
import { Action, Failure, Guard, html, keep, Notice, State, useEffect, useMemo, useRead, useRef, useState, useStore } from "./ui.js";

// What was sent since the login, by engine: it stays when the page is left. A logout loads the document anew.
const sent = new Map();
// Cells that are kept of one engine.
const CELLS = 30;
// More than a person sends: what has ended is shown before what waits for its turn.
const CELLS_EVER = 1e9;
const drafts = new Map();

function Editor({ code, setCode, runType, submit }) {
  const layer = useRef(null);
  const area = useRef(null);
  const shown = useMemo(() => parts(code, runType), [code, runType]);
  const keys = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      submit();
    }
  };
  const scroll = () => {
    layer.current.scrollTop = area.current.scrollTop;
    layer.current.scrollLeft = area.current.scrollLeft;
  };
  return html`<div class="editor">
    <pre aria-hidden="true" ref=${layer}>${shown.map(([kind, text], at) => (kind ? html`<span key=${at} class=${`k-${kind}`}>${text}</span>` : text))}${"\n"}</pre>
    <textarea ref=${area} aria-label="Code" value=${code} rows="10" spellcheck="false" autocapitalize="off" autocomplete="off" wrap="off"
      onInput=${(event) => setCode(event.target.value)} onKeyDown=${keys} onScroll=${scroll} placeholder="code; Ctrl and Enter run it"></textarea>
  </div>`;
}

// A click is to do something, or to say that it does not.
const CLICK_SECONDS = 30;

function Cell({ cell, engineId, changed, readOnly }) {
  const interrupt = async () => {
    cell.known = await call("cancelTask", { body: { engineId, taskId: cell.taskId }, seconds: CLICK_SECONDS });
    changed();
  };
  const onEnd = (last) => {
    // Where it could not be followed, it may run on, and be interrupted.
    if (last === null) return;
    cell.known = last;
    cell.ended = true;
    changed();
  };
  return html`<section class="cell" aria-label=${`Run ${cell.number}`}>
    <div class="cellhead"><span class="muted">[${cell.number}] ${cell.runType}</span>
      ${!cell.ended && cell.taskId && !readOnly && html`<${Action} kind="small" run=${interrupt}>Interrupt<//>`}</div>
    <pre class="code">${parts(cell.code, cell.runType).map(([kind, text], at) => (kind ? html`<span key=${at} class=${`k-${kind}`}>${visible(text)}</span>` : visible(text)))}</pre>
    <${Failure} error=${cell.error} />
    ${cell.taskId && html`<${Guard}><${Task} engineId=${engineId} taskId=${cell.taskId} order=${cell.ended ? cell.number - CELLS_EVER : cell.number} known=${cell.known} onEnd=${onEnd} /><//>`}
  </section>`;
}

export default function Run({ store, me, argument, query }) {
  const runType = query.get("lang") ?? "";
  const version = useStore(store);
  const [, setTurn] = useState(0);
  const row = store.get(argument);
  // One engine, one place: by its ticket or by its name, and also when its resource is gone.
  const key = useRef("");
  if (row) key.current = row.key;
  const engineId = key.current || argument;
  const [code, setCodeState] = useState(drafts.get(engineId) ?? "");
  const catalogue = useRead((signal) => call("listEnginePlugins", { signal }), []);
  useEffect(() => setCodeState(drafts.get(engineId) ?? ""), [engineId]);
  const usable = useMemo(() => [...store.rows.values()].filter((row) => row.available && !row.stopping).sort((a, b) => (a.key < b.key ? -1 : 1)), [version]);
  const plugin = row && catalogue.data?.plugins.find((one) => one.engineType === row.engineType && one.engineVersion === row.engineVersion);
  const types = plugin?.runTypes ?? (row ? [row.engineType] : []);
  const chosen = types.includes(runType) ? runType : types[0] ?? "";
  const cells = sent.get(engineId) ?? [];
  const setCode = (text) => {
    drafts.set(engineId, text);
    setCodeState(text);
  };
  const changed = () => setTurn((turn) => turn + 1);
  const ready = row?.available && code.trim() && !me.readOnly;
  const submit = async () => {
    if (!ready) return;
    const cell = { number: (cells[0]?.number ?? 0) + 1, code, runType: chosen, taskId: "", error: null, known: null, ended: false };
    sent.set(engineId, [cell, ...cells].slice(0, CELLS));
    changed();
    try {
      // The key makes a repetition of a lost call the same task.
      const task = await call("executeCode", { body: { engineId, code: cell.code, runType: chosen, wait: false, idempotencyKey: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` } });
      cell.taskId = task.taskId;
    } catch (error) {
      cell.error = error;
      cell.ended = true;
    }
    changed();
  };

  return html`
    <h1>Run code</h1>
    ${me.readOnly && html`<${Notice} kind="warning">Your token may only look: code cannot be run with it.<//>`}
    <div class="bar">
      <label>Engine <select value=${engineId} onChange=${(event) => (location.hash = `#/run/${event.target.value}`)}>
        <option value="">choose one …</option>
        ${argument && !usable.some((one) => one.key === engineId) && html`<option value=${engineId}>${row ? `${row.name} (${row.status})` : argument}</option>`}
        ${usable.map((one) => html`<option key=${one.key} value=${one.key}>${one.name} (${one.user})</option>`)}
      </select></label>
      ${row && html`<label>Language <select value=${chosen} onChange=${(event) => keep({ lang: event.target.value })}>${types.map((type) => html`<option key=${type}>${type}</option>`)}</select></label>
        <${State} state=${row.status} stopping=${row.stopping} /> <a href=${`#/engine/${addressOf(row)}`}>its page</a>`}
    </div>
    ${!argument && store.live && !usable.length && html`<p class="muted">No engine takes code now: the <a href="#/catalogue">catalogue</a> starts one.</p>`}
    ${argument && store.live && !row && html`<${Notice} kind="warning">This engine is not there any more, or it is another user's: choose another one.<//>`}
    ${row && !row.available && html`<${Notice} kind="warning">This engine is ${row.status} and takes no code now. ${visible(row.message)}<//>`}
    ${argument && html`<${Editor} code=${code} setCode=${setCode} runType=${chosen} submit=${submit} />
      <div class="buttons"><button type="button" class="primary" disabled=${!ready} onClick=${submit}>Run</button><span class="muted">Ctrl and Enter</span></div>
      ${cells.map((cell) => html`<${Cell} key=${cell.number} cell=${cell} engineId=${engineId} changed=${changed} readOnly=${me.readOnly} />`)}`}`;
}
