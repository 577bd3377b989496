// How engines fare: live figures from the stream, and the last hour's curves that the gateway keeps.

import { call } from "./api.js";
import { Curve } from "./curve.js";
import { ORDER } from "./engines.js";
import { addressOf } from "./store.js";
import { bytes, cores, duration, inWords, moment, now } from "./format.js";
import { Failure, FINAL, html, Notice, State, Table, useEffect, useMemo, useRead, useState, useStore } from "./ui.js";

const COLOUR = { Starting: "--warn", Unlock: "--good", Idle: "--good", Locked: "--warn", Busy: "--busy", Running: "--busy", ShuttingDown: "--muted", Failed: "--bad", Success: "--accent" };

function grouped(rows, of) {
  const found = new Map();
  for (const row of rows) {
    const name = of(row);
    const entry = found.get(name) ?? { name, count: 0, busy: 0, failed: 0, cpu: 0, memory: 0 };
    entry.count += 1;
    entry.busy += row.status === "Busy" ? 1 : 0;
    entry.failed += row.status === "Failed" ? 1 : 0;
    if (!FINAL.has(row.status)) {
      entry.cpu += row.cpuMilli;
      entry.memory += row.memoryBytes;
    }
    found.set(name, entry);
  }
  return [...found.values()].sort((a, b) => b.count - a.count || (a.name < b.name ? -1 : 1));
}

const link = (query, text) => html`<a href=${`#/engines?${new URLSearchParams(query)}`}>${text}</a>`;

export default function Overview({ store, me }) {
  const version = useStore(store);
  const hour = useRead((signal) => call("getOverview", { signal }), [], 10);
  const rows = useMemo(() => [...store.rows.values()], [version]);
  const live = rows.filter((row) => !FINAL.has(row.status));
  const counts = new Map(grouped(rows, (row) => row.status).map((one) => [one.name, one.count]));
  const failures = rows.filter((row) => row.status === "Failed").sort((a, b) => String(b.since).localeCompare(String(a.since)));
  const slow = rows.filter((row) => row.status === "Starting" && now() - Date.parse(row.created) > 60_000);
  const starts = rows.map((row) => row.readyMillis).filter((one) => one !== null).sort((a, b) => a - b);
  const trend = hour.data?.trend;
  const group = (title, of, field) => html`<section><h2>${title}</h2><${Table} caption=${title} rows=${grouped(rows, of).slice(0, 8)} keyOf=${(one) => one.name} empty="None." columns=${[
    [title.replace(/^By ./, (found) => found.at(-1).toUpperCase()), (one) => link({ q: `${field}:${one.name.split(" ")[0]}` }, one.name || "none")], ["Engines", (one) => one.count, "number"], ["Busy", (one) => one.busy || "", "number"],
    ["Failed", (one) => one.failed || "", "number"], ["Cores", (one) => cores(one.cpu), "number"], ["Memory", (one) => (one.memory ? bytes(one.memory) : ""), "number"],
  ]} /></section>`;

  return html`
    <h1>Overview</h1>
    <p class="muted">${me.admin ? "Engines of everybody that this gateway serves." : `Engines that ${me.user} may use.`}</p>
    ${store.problem && html`<${Notice} kind="warning">${store.problem} The figures may be old; the console connects again by itself.<//>`}
    <ul class="tiles">
      <li><span class="figure">${live.length}</span> live engines</li>
      ${ORDER.filter((state) => counts.get(state)).map((state) => html`<li key=${state}><span class="figure">${link({ state }, counts.get(state))}</span> <${State} state=${state} /></li>`)}
      <li><span class="figure">${cores(live.reduce((sum, row) => sum + row.cpuMilli, 0)) || 0}</span> cores given</li>
      <li><span class="figure">${bytes(live.reduce((sum, row) => sum + row.memoryBytes, 0))}</span> memory given</li>
      ${starts.length > 0 && html`<li><span class="figure">${(starts[Math.floor(starts.length / 2)] / 1000).toFixed(1)} s</span> median start</li>`}
    </ul>
    <h2>Engines by state, the last hour</h2>
    <${Failure} error=${hour.error} again=${hour.again} />
    ${trend && trend.at.length > 1 && html`
      <${Curve} label="Engines by state" at=${trend.at} lines=${ORDER.filter((state) => trend.states[state]).map((state) => [state, trend.states[state], COLOUR[state]])} />
      <div class="two"><section><h2>Became ready and failed, each 10 s</h2>
        <${Curve} label="Became ready and failed" at=${trend.at} lines=${[["ready", trend.ready, "--good"], ["failed", trend.failed, "--bad"]]} /></section>
      <section><h2>Longest start, each 10 s</h2>
        <${Curve} label="Longest start in seconds" unit=" s" dots=${true} at=${trend.at} lines=${[["longest start", trend.startMillis.map((one) => (one === null ? null : one / 1000)), "--busy"]]} /></section></div>`}
    ${trend && trend.at.length <= 1 && html`<p class="muted">${rows.length ? "The gateway has just begun to count: the curve begins within 20 s." : "There is no curve without engines: it begins some seconds after the first one."}</p>`}
    <p class="muted">Kept by this gateway since its start, a sample every 10 s.</p>
    <div class="two">
      ${group("By type", (row) => `${row.engineType} ${row.engineVersion}`, "type")}
      ${me.admin || me.adminNamespaces.length ? group("By user", (row) => row.user, "user") : group("By creator", (row) => row.creator, "creator")}
    </div>
    ${slow.length > 0 && html`<h2>Starting for more than a minute</h2><${Table} caption="Slow starts" rows=${slow.slice(0, 10)} keyOf=${(row) => row.key} columns=${[
      ["Engine", (row) => html`<a href=${`#/engine/${addressOf(row)}`}>${row.name}</a>`], ["User", (row) => row.user], ["For", (row) => duration((now() - Date.parse(row.created)) / 1000), "number"], ["Reason", (row) => row.reason], ["", (row) => inWords(row.message)],
    ]} />`}
    <h2>Failures</h2>
    <${Table} caption="Failures" rows=${failures.slice(0, 10)} keyOf=${(row) => row.key} empty="No engine that is still there has failed." columns=${[
      ["Engine", (row) => html`<a href=${`#/engine/${addressOf(row)}`}>${row.name}</a>`], ["User", (row) => row.user], ["When", (row) => moment(row.since)], ["Reason", (row) => row.reason], ["", (row) => inWords(row.message)],
    ]} />
    ${failures.length > 10 && html`<p>${link({ state: "Failed" }, `All ${failures.length} failures`)}</p>`}`;
}
