// A table that code has put out: a page of rows and of columns at a time, and the whole as a download.

import { call, CallError, request } from "./api.js";
import { visible } from "./format.js";
import { Failure, html, useEffect, useState } from "./ui.js";

// Rows and columns that are shown at once: 20,000 cells. A browser draws them in less than a second; 150,000 stall it.
const PAGE = 100;
const WIDE = 200;
// The most columns that an engine sends with a task's outputs. The file of a table that has so many may have more.
const SENT_COLUMNS = 500;

export const isRows = (rows) => Array.isArray(rows) && rows.every(Array.isArray);
const areColumns = (columns) => Array.isArray(columns) && columns.every((one) => typeof one?.name === "string");
const count = (value) => (Number.isInteger(value) && value >= 0 ? value : null);
export const cellText = (value) => (value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value));

/** Buttons to the pages of `total` things, `size` on a page, of which `first` (from 0) is the first shown. */
function Pager({ first, size, total, go, of = "" }) {
  if (total <= size) return null;
  const end = Math.floor((total - 1) / size) * size;
  const step = (title, to, on) => html`<button type="button" class="small" disabled=${!on} onClick=${() => go(to)}>${title}${of && ` ${of}`}</button>`;
  return html`<span class="buttons" role="group" aria-label=${of || "rows"}>${step("First", 0, first > 0)}${step("Previous", Math.max(0, first - size), first > 0)}
    ${step("Next", first + size, first + size < total)}${step("Last", end, first + size < total)}</span>`;
}

/** What there is of the table, and which part is shown, as a sentence. */
function told({ total, kept, first, last, width, left, right, more }) {
  const parts = [`${total} rows, ${width} columns`];
  if (kept > PAGE) parts.push(`; rows ${first + 1} to ${last}`);
  if (width > WIDE) parts.push(`; columns ${left + 1} to ${right}`);
  if (total > kept) parts.push(`, of which ${kept} are kept`);
  if (more) parts.push(`; it may have more columns: an engine sends the first ${SENT_COLUMNS}`);
  else if (width > WIDE) parts.push("; the download has all");
  return parts.join("");
}

export function ResultTable({ output, index, engineId, taskId }) {
  const [first, setFirst] = useState(0);
  const [left, setLeft] = useState(0);
  const [fetched, setFetched] = useState(null);
  const [error, setError] = useState(null);
  const [turn, setTurn] = useState(0);
  const held = output.rows ?? [];
  const kept = output.resultId ? count(output.resultRows) ?? count(output.totalRows) ?? held.length : held.length;
  const total = count(output.totalRows) ?? kept;
  const last = Math.min(first + PAGE, kept);
  // How many columns a wide table has is known to its file alone.
  const wide = output.columns.length >= SENT_COLUMNS && Boolean(output.truncated);
  const asks = Boolean(output.resultId && taskId);
  const width = Math.max(fetched?.width ?? 0, output.columns.length);
  const right = Math.min(left + WIDE, width);
  const inside = last <= held.length && right <= output.columns.length;
  useEffect(() => {
    setError(null);
    if (!asks || (inside && !wide)) return undefined;
    const aborter = new AbortController();
    call("getResultSet", { query: { engineId, taskId, output: index, fromRow: first + 1, rows: PAGE, fromColumn: left + 1, columns: WIDE }, signal: aborter.signal, seconds: 120 })
      .then((page) => {
        if (!isRows(page?.rows) || !areColumns(page.columns)) throw new CallError("These rows are not of the form that the page knows: download the table.");
        setFetched({ first, left, rows: page.rows.slice(0, PAGE), columns: page.columns.slice(0, WIDE), width: count(page.totalColumns) ?? 0 });
      })
      .catch((failed) => !aborter.signal.aborted && setError(failed));
    return () => aborter.abort();
  }, [first, left, inside, asks, wide, engineId, taskId, index, turn]);
  const save = async () => {
    setError(null);
    try {
      const answer = await request("getResultSet", { query: { engineId, taskId, output: index, format: "arrow" }, seconds: 600 });
      download(await answer.blob(), `result-${taskId.slice(0, 8)}-${index}.arrows`);
    } catch (failed) {
      setError(failed);
    }
  };
  const found = fetched?.first === first && fetched.left === left ? fetched : null;
  const shown = found ?? (inside ? { columns: output.columns.slice(left, right), rows: held.slice(first, last).map((row) => row.slice(left, right)) } : null);
  const more = wide && !(fetched?.width > 0);
  return html`<div class="out">
    <div class="buttons">
      <span class="muted">${told({ total, kept, first, last, width, left, right, more })}</span>
      <${Pager} first=${first} size=${PAGE} total=${kept} go=${setFirst} />
      <${Pager} first=${left} size=${WIDE} total=${width} go=${setLeft} of="columns" />
      ${taskId && html`<button type="button" class="small" onClick=${save}>Download as Arrow</button>`}
    </div>
    <${Failure} error=${error} again=${() => setTurn(turn + 1)} />
    ${shown ? html`<${Cells} ...${shown} first=${first} left=${left} />` : !error && html`<p class="muted">Reading rows ${first + 1} to ${last} …</p>`}
  </div>`;
}

/** The cells, a heading above each: what a row has beyond its columns is left out. */
function Cells({ columns, rows, first, left }) {
  return html`<div class="tablebox" tabindex="0" role="region" aria-label="Result table"><table>
    <thead><tr><th scope="col" class="number">row</th>${columns.map((column, at) => html`<th key=${left + at} scope="col" title=${typeof column.type === "string" ? column.type : null} class=${typeof rows[0]?.[at] === "number" ? "number" : ""}>${visible(column.name)}</th>`)}</tr></thead>
    <tbody>${rows.map((row, number) => html`<tr key=${number}><td class="number muted">${first + number + 1}</td>${columns.map((_, at) => html`<td key=${left + at}
      class=${typeof row[at] === "number" ? "number" : row[at] === null ? "null" : ""}>${row[at] === null ? "null" : visible(cellText(row[at]))}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

/** Saves a blob under a name. */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
