// Engines that were: Linkis's table of records, page by page, with Linkis's filters.

import { call } from "./api.js";
import { bytes, duration, moment, now, several } from "./format.js";
import { Failure, html, keep, Notice, State, Step, Table, useRead, useState, useTyped } from "./ui.js";

const PAGE = 50;
const DAY = 86_400_000;
// The periods that can be chosen: days back from now.
const PERIODS = [["1", "the last day"], ["7", "the last week"], ["31", "the last month"], ["366", "the last year"]];
// Linkis's rows keep the status ShuttingDown of an engine that somebody stopped: what is shown says what it is.
const STOPPING = "ShuttingDown";
const STATUSES = [["Starting"], ["Idle"], ["Busy"], [STOPPING, "Stopped (Linkis: ShuttingDown)"], ["Success"], ["Failed"]];

/** The records' own form of a time: UTC, without a zone. */
const written = (time) => new Date(time).toISOString().slice(0, 19).replace("T", " ");

/** A field that filters when it is left or by Enter. What is typed stays while an answer arrives and all is drawn anew. */
function Field({ label, name, size, most, kept, apply }) {
  const [text, setText] = useTyped(name, kept);
  return html`<label>${label} <input size=${size} maxlength=${most} value=${text} onInput=${(event) => setText(event.target.value)} onChange=${apply} /></label>`;
}

/** A row's status: an ended engine with Linkis's ShuttingDown has been stopped, one that has not ended is being stopped. */
function Ended({ row }) {
  const stopped = row.status === STOPPING && row.releaseTime;
  return stopped ? html`<${State} state="Stopped" /> <span class="muted">(Linkis: ShuttingDown)</span>` : html`<${State} state=${row.status} />`;
}

export default function History({ me, query: address }) {
  // The address has the filters and the page.
  const of = (name) => address.get(name) ?? "";
  const days = PERIODS.some(([value]) => value === of("days")) ? of("days") : "1";
  const filter = { status: of("status"), engineType: of("type"), creator: of("user"), instance: of("instance") };
  const page = Math.max(1, Math.trunc(Number(of("page"))) || 1);
  // The period's end stays while pages are turned, so that no row moves to another page.
  const [end, setEnd] = useState(now);
  const query = { ...filter, startDate: written(end - days * DAY), endDate: written(end + 1000), pageNow: page, pageSize: PAGE };
  const found = useRead((signal) => (me.records ? call("linkis/ecinfo/ecrHistoryList", { query, signal }) : Promise.resolve(null)), [query, me.records]);
  const set = (name) => (event) => {
    const value = event.target.value.trim();
    keep({ [name]: name === "days" && value === "1" ? "" : value, page: "" });
    setEnd(now());
  };
  const turnTo = (to) => keep({ page: to > 1 ? to : "" });
  const rows = found.data?.engineList ?? [];
  const total = found.data?.totalPage ?? 0;
  const last = Math.max(1, Math.ceil(total / PAGE));
  if (!me.records) return html`<h1>History</h1><${Notice}>This gateway has no database: engines are known here as long as their resource is there (database.url of the chart).<//>`;
  return html`
    <h1>History</h1>
    <p class="muted">All engines of the database, also those whose resource is gone: Linkis's records${me.admin ? "" : " of your own engines"}.</p>
    <div class="bar">
      <label>Made in <select value=${days} onChange=${set("days")}>${PERIODS.map(([value, title]) => html`<option key=${value} value=${value}>${title}</option>`)}</select></label>
      <label>Status <select value=${filter.status} onChange=${set("status")}><option value="">any</option>${STATUSES.map(([value, title = value]) => html`<option key=${value} value=${value}>${title}</option>`)}</select></label>
      <${Field} label="Type" name="type" size="9" most="64" kept=${filter.engineType} apply=${set("type")} />
      ${me.admin && html`<${Field} label="User" name="user" size="9" most="64" kept=${filter.creator} apply=${set("user")} />`}
      <${Field} label="Instance" name="instance" size="16" most="200" kept=${filter.instance} apply=${set("instance")} />
      <button type="button" class="small" onClick=${() => (setEnd(now()), found.again())}>Read again</button>
    </div>
    <${Failure} error=${found.error} again=${found.again} />
    ${found.loading && html`<p class="muted">Reading …</p>`}
    ${found.data && html`
      <${Table} caption="Records" rows=${rows} keyOf=${(row) => row.id} empty="No engine was made in this time that passes the filter." columns=${[
        ["Instance", (row) => html`<a href=${`#/engine/${encodeURIComponent(row.ticketId)}`}>${row.serviceInstance || row.ticketId}</a>`, "id wide"],
        ["Status", (row) => html`<${Ended} row=${row} />`], ["Type", (row) => row.engineType], ...(me.admin ? [["User", (row) => row.createUser]] : []), ["Label", (row) => row.labelValue, "id"],
        ["Made", (row) => moment(row.createTime / 1000), "time"], ["Ready after", (row) => (row.usedTime ? duration((row.usedTime - row.createTime) / 1000) : ""), "number"],
        ["Lived", (row) => (row.releaseTime ? duration((row.releaseTime - row.createTime) / 1000) : ""), "number"],
        ["Memory", (row) => (row.requestResource?.memory ? bytes(row.requestResource.memory) : ""), "number"], ["ECM", (row) => row.ecmInstance, "id"],
      ]} />
      <div class="buttons pager">
        <${Step} on=${page > 1} go=${() => turnTo(1)}>First<//>
        <${Step} on=${page > 1} go=${() => turnTo(page - 1)}>Newer<//>
        <${Step} on=${page < last} go=${() => turnTo(page + 1)}>Older<//>
        <${Step} on=${page < last} go=${() => turnTo(last)}>Last<//>
        <span class="muted" role="status">${several(total, "record")}, page ${page} of ${last}</span>
      </div>`}`;
}
