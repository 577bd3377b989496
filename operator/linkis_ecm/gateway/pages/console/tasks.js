// Tasks of an engine, the newest first, and what each has put out.

import { call } from "./api.js";
import { duration, moment, several, visible } from "./format.js";
import { Task } from "./outputs.js";
import { Action, Failure, Guard, html, keep, State, useRead, useStore } from "./ui.js";

/** `seen` changes with the engine's state: a task has begun or ended then. The address has the chosen one, `task`. */
export function TaskList({ engine, seen, readOnly, query }) {
  const engineId = engine.engineId;
  const open = query.get("task") ?? "";
  const found = useRead((signal) => call("listTasks", { query: { engineId, pageSize: 200 }, signal }), [engineId, seen]);
  const tasks = Array.isArray(found.data?.tasks) ? found.data.tasks : [];
  return html`
    <div class="bar"><span class="muted" role="status">${found.loading && !found.data ? "Reading …" : several(tasks.length, "task")}</span>
      <button type="button" class="small" onClick=${found.again}>Read again</button></div>
    <${Failure} error=${found.error} again=${found.again} />
    ${tasks.length > 0 && html`<div class="tablebox tasks" tabindex="0" role="region" aria-label="Tasks"><table>
      <thead><tr><th scope="col">Task</th><th scope="col">Code</th><th scope="col">Status</th><th scope="col">Accepted</th><th scope="col" class="number">Waited</th><th scope="col" class="number">Ran</th><th scope="col">Language</th><th scope="col">Caller</th><th scope="col">Error</th><th scope="col"><span class="hidden">Cancel</span></th></tr></thead>
      <tbody>${tasks.map((task) => html`<tr key=${task.taskId} class=${open === task.taskId ? "active" : ""}>
        <td><button type="button" class="link" aria-expanded=${String(open === task.taskId)} title=${task.taskId} onClick=${() => keep({ task: open === task.taskId ? "" : task.taskId })}>${task.taskId.slice(0, 8)}</button></td>
        <td class="codeline"><code>${visible(task.firstLine ?? "")}</code></td>
        <td><${State} state=${task.status} /></td>
        <td>${moment(task.acceptedAt)}</td>
        <td class="number">${task.startedAt && task.acceptedAt ? duration(task.startedAt - task.acceptedAt) : ""}</td>
        <td class="number">${task.endedAt && task.startedAt ? duration(task.endedAt - task.startedAt) : ""}</td>
        <td>${visible(task.runType ?? "")}</td><td>${visible(task.caller ?? "")}</td>
        <td>${visible(`${task.reason}${task.message ? `: ${task.message.slice(0, 120)}` : ""}`)}</td>
        <td>${!task.final && !readOnly && html`<${Action} kind="small" run=${() => call("cancelTask", { body: { engineId, taskId: task.taskId } })} done=${found.again}>Cancel<//>`}</td>
      </tr>`)}</tbody>
    </table></div>`}
    ${found.data && !tasks.length && html`<p class="muted">No task of this engine is known.</p>`}
    ${open && html`<h2>Task ${open}</h2><${Guard} key=${open}><${Task} engineId=${engineId} taskId=${open} /><//>`}`;
}

export default function Tasks({ store, me, argument, query }) {
  const version = useStore(store);
  const rows = [...store.rows.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  const row = store.get(argument);
  const engineId = row?.key ?? argument;
  return html`
    <h1>Tasks</h1>
    <div class="bar"><label>Engine <select value=${engineId} onChange=${(event) => (location.hash = `#/tasks/${event.target.value}`)}>
      <option value="">choose one …</option>
      ${argument && !row && html`<option value=${argument}>${argument}</option>`}
      ${rows.map((one) => html`<option key=${one.key} value=${one.key}>${one.name} (${one.status}, ${one.user})</option>`)}
    </select></label></div>
    ${argument ? html`<${TaskList} engine=${{ engineId }} seen=${row ? `${row.status} ${row.since}` : ""} readOnly=${me.readOnly} query=${query} />` : html`<p class="muted">Choose an engine: its tasks, also those of its earlier attempts, are shown here.</p>`}`;
}
