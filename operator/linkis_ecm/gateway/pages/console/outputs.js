// What code has put out: text, tables by pages, pictures, pages of HTML in a frame without rights, errors.

import { call, CallError, events, request } from "./api.js";
import { bytes, visible } from "./format.js";
import { inTurn, pause, streamed } from "./places.js";
import { cellText, isRows, ResultTable } from "./table.js";
import { Failure, Guard, html, State, useEffect, useRef, useState } from "./ui.js";

export { download } from "./table.js";

// Characters of a text that are shown: its last ones.
const TEXT_MAX = 256 * 1024;
// Where other tabs have all places for streams: how long one look at a task may take, and the pause between two, in seconds.
const BRIEF_SECONDS = 3;
const PAUSE_SECONDS = 2;
// A task's stream may end so often without a word, one time after the other, before the reader is told.
const FAILURES = 5;
const PICTURES = new Set(["image/png", "image/jpeg", "image/svg+xml", "image/gif", "image/webp"]);

// The one place where text becomes HTML: the document of a frame that may run nothing and is of no origin.
const frames = window.trustedTypes?.createPolicy("console-frame", { createHTML: (text) => text }) ?? { createHTML: (text) => text };
// The frame has the page's own policy besides, by inheritance.
const FRAME_HEAD = `<!doctype html><meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:"><body>`;

// Where the part of a long text is that is not shown. What code prints is in the log, what it gives or displays is not.
const PRINTED = "… the earlier part is left out here. The log has it; a line of more than 64 KiB is whole in the log's download alone.\n";
const GIVEN = "… the earlier part is left out here, and no log has it: it is in the task's result (getTaskResult) while the engine lives.\n";

function Text({ output }) {
  const { text, stream } = output;
  const cut = text.length > TEXT_MAX;
  const said = stream === "stdout" || stream === "stderr" ? PRINTED : GIVEN;
  return html`<pre class=${`out ${stream === "stderr" ? "stderr" : ""}`}>${cut ? said : ""}${visible(text.slice(-TEXT_MAX))}</pre>`;
}

function Failed({ output }) {
  const { name, value, traceback } = output;
  const lines = (Array.isArray(traceback) ? traceback : [traceback]).filter(isText).join("\n");
  return html`<div class="out failed">
    <p><strong>${isText(name) ? visible(name) : "Error"}</strong>: ${visible(cellText(value))}</p>
    ${lines && html`<details open><summary>Traceback</summary><pre>${visible(lines.slice(-TEXT_MAX))}</pre></details>`}
  </div>`;
}

function Picture({ output }) {
  const [url, setUrl] = useState(null);
  useEffect(() => {
    if (!PICTURES.has(output.mime)) return undefined;
    let made = null;
    try {
      const data = Uint8Array.from(atob(output.data.replace(/\s/g, "")), (one) => one.charCodeAt(0));
      // As an <img>, an SVG runs no script and loads nothing.
      made = URL.createObjectURL(new Blob([data], { type: output.mime }));
    } catch {
      made = null;
    }
    setUrl(made);
    return () => made && URL.revokeObjectURL(made);
  }, [output.data, output.mime]);
  if (!PICTURES.has(output.mime)) return html`<p class="muted">A picture of a type that is not shown: ${visible(output.mime)}</p>`;
  return url ? html`<img class="out picture" src=${url} alt="Picture that the code has made" />` : html`<p class="muted">A picture that cannot be read.</p>`;
}

function Page({ output }) {
  const [framed, setFramed] = useState(false);
  const frame = useRef(null);
  useEffect(() => {
    if (framed) frame.current.srcdoc = frames.createHTML(FRAME_HEAD + output.text);
  }, [framed, output.text]);
  return html`<div class="out">
    <div class="buttons"><span class="muted">HTML, ${bytes(output.text.length)}</span>
      <button type="button" class="small" aria-pressed=${String(framed)} onClick=${() => setFramed(!framed)}>Show as a page</button></div>
    ${framed
      ? html`<iframe ref=${frame} sandbox="" title="HTML that the code has made" referrerpolicy="no-referrer"></iframe>`
      : html`<pre>${visible(output.text.slice(0, TEXT_MAX))}</pre>`}
  </div>`;
}

const isText = (value) => typeof value === "string";

// What an output of each type must have, so that it can be drawn. The agent is its user's, and may send anything.
const SHAPES = {
  text: ({ text }) => isText(text),
  table: ({ columns, rows }) => Array.isArray(columns) && columns.every((one) => isText(one?.name)) && (rows === undefined || isRows(rows)),
  picture: ({ mime, data }) => isText(mime) && isText(data),
  html: ({ text }) => isText(text),
  error: () => true,
};
const VIEWS = { text: Text, table: ResultTable, picture: Picture, html: Page, error: Failed };

/** One output; where it is not of the form of its type, as it came. */
function Output({ output, ...more }) {
  if (Object.hasOwn(SHAPES, output.type) && SHAPES[output.type](output)) return html`<${Guard}><${VIEWS[output.type]} output=${output} ...${more} /><//>`;
  return html`<div class="out"><p class="muted">The engine has sent something that this page has no form for; as it came:</p><pre>${visible(JSON.stringify(output).slice(0, TEXT_MAX))}</pre></div>`;
}

/** The outputs of a task in their order. */
export function Outputs({ outputs, engineId, taskId }) {
  return outputs.map((output, index) => output && html`<${Output} key=${index} output=${output} index=${index} engineId=${engineId} taskId=${taskId} />`);
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
// Outputs that are kept of a task.
const OUTPUTS_MAX = 10_000;

/** The state of a task as the agent reports it, without what is of another form. */
function reported(data) {
  const found = {};
  for (const name of ["status", "reason", "message", "progressMessage"]) if (isText(data[name])) found[name] = data[name];
  for (const name of ["progress", "startedAt", "endedAt"]) if (typeof data[name] === "number") found[name] = data[name];
  return found;
}

/** A task that has ended, from the answer of getTaskResult. */
function whole(data) {
  const outputs = Array.isArray(data?.outputs) ? data.outputs.slice(0, OUTPUTS_MAX).map((one) => (isObject(one) ? one : { type: null, value: one })) : [];
  return { status: "", ...(isObject(data) ? reported(data) : {}), ended: true, outputs };
}

/** What becomes of a task, from its events. `task` is {status, progress, …, outputs}; pure. */
export function after(task, { event, data }) {
  if (event === "reset") return { ...task, outputs: [] };
  if (event === "end") return { ...task, ...(isObject(data) ? reported(data) : {}), ended: true };
  if (event === "status") return isObject(data) ? { ...task, ...reported(data) } : task;
  if (event !== "output" || !Number.isInteger(data?.index) || data.index < 0 || data.index > OUTPUTS_MAX) return task;
  const output = isObject(data.output) ? data.output : { type: null, value: data.output };
  const outputs = [...task.outputs];
  const before = outputs[data.index];
  const grows = before?.type === "text" && output.type === "text" && isText(before.text) && isText(output.text) && !data.replaces;
  outputs[data.index] = grows ? { ...before, text: (before.text + output.text).slice(-2 * TEXT_MAX) } : output;
  return { ...task, outputs };
}

/** Follows a task while it runs; an ended one is shown whole. One of a tab's tasks is followed at a time, that with the
 * smallest `order` first: an engine runs its tasks one after the other. `known` is what else is known of its state.
 * `onEnd` is called with its last state. */
export function Task({ engineId, taskId, order = 0, known = null, onEnd }) {
  const [task, setTask] = useState(null);
  const [error, setError] = useState(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const aborter = new AbortController();
    const { signal } = aborter;
    let now = { status: "", outputs: [], ended: false };
    let waiting = false;
    const show = () => {
      if (waiting) return;
      waiting = true;
      // Code that prints a thousand lines a second is drawn four times a second.
      setTimeout(() => {
        waiting = false;
        if (!signal.aborted) setTask(now);
      }, 250);
    };
    setError(null);
    let cursor = null;
    let failures = 0;
    const look = () =>
      streamed(async (cut) => {
        for await (const one of events("taskEvents", { engineId, taskId, lastEventId: cursor }, cut)) {
          // The stream's end and not the task's: the gateway stops, or the login is another one by now.
          if (one.event === "end" && one.data?.status === "Unknown") break;
          failures = 0;
          if (one.id) cursor = one.id;
          now = after(now, one);
          show();
          if (now.ended) return;
        }
        throw new CallError("The task's stream broke off.");
      }, { signal, seconds: BRIEF_SECONDS });
    const follow = async () => {
      while (!now.ended) {
        let wait = 0;
        try {
          if ((await look()) === "brief") wait = PAUSE_SECONDS;
        } catch (failed) {
          if (signal.aborted) throw failed;
          if (failed.http === 400) {
            // The engine has ended: what is kept of the task is a whole.
            now = whole(await call("getTaskResult", { query: { engineId, taskId }, signal, seconds: 120 }));
            break;
          }
          failures += 1;
          if (failures >= FAILURES || (failed.http >= 400 && failed.http < 500)) throw failed;
          wait = failures * (0.75 + Math.random() / 2);
        }
        if (!now.ended) await pause(wait, signal);
      }
      setTask(now);
      onEnd?.({ ...now, outputs: undefined });
    };
    inTurn(order, signal, follow).catch((failed) => !signal.aborted && (setError(failed), onEnd?.(null)));
    return () => aborter.abort();
  }, [engineId, taskId, turn]);
  return html`<${Shown} task=${task ?? { status: "Accepted", outputs: [], ended: false, ...known }} error=${error} again=${() => setTurn(turn + 1)}
    engineId=${engineId} taskId=${taskId} />`;
}

function Shown({ task, error, again, engineId, taskId }) {
  const running = task.status && !task.ended;
  return html`<div class="task">
    <p class="buttons" role="status"><${State} state=${task.status || "Accepted"} />
      ${running && task.progress > 0 ? html`<progress max="1" value=${task.progress} aria-label="Progress"></progress>` : null}
      ${task.progressMessage ? html`<span class="muted">${visible(task.progressMessage)}</span>` : null}
      ${task.ended && task.endedAt > 0 && task.startedAt > 0 ? html`<span class="muted">ran ${(task.endedAt - task.startedAt).toFixed(2)} s</span>` : null}
      ${task.ended && task.reason ? html`<span>${visible(`${task.reason}${task.message ? `: ${task.message}` : ""}`)}</span>` : null}</p>
    <${Failure} error=${error} again=${again} />
    <${Outputs} outputs=${task.outputs} engineId=${engineId} taskId=${taskId} />
    ${task.ended && !task.outputs.length && !error && task.status === "Succeed" ? html`<p class="muted">No output.</p>` : null}
  </div>`;
}
