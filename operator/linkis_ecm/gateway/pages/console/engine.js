// One engine: what it is, how it started, why it is as it is, what ends it, its log, tasks, usage and post-mortem.

import { call, CallError } from "./api.js";
import { useNow } from "./clock.js";
import { Curve } from "./curve.js";
import { age, bytes, cores, duration, inWords, moment, visible } from "./format.js";
import { Log, TYPES } from "./log.js";
import { addressOf } from "./store.js";
import { TaskList } from "./tasks.js";
import { Action, Facts, Failure, FINAL, Guard, html, keep, Notice, State, Table, Tabs, useConfirm, useEffect, useRead, useRef, useState, useStore } from "./ui.js";

const PHASES = { accepted: "accepted", claimed: "taken from the warm pool", scheduled: "scheduled to a node", agentStarted: "agent started", containerStarted: "container started", kernelReady: "kernel answered", ready: "ready" };
// Seconds between two looks at the usage of the one engine that is looked at.
const USAGE_SECONDS = 5;
const USAGE_POINTS = 360;

/** The start as a waterfall: from each phase to the next one. */
function Waterfall({ millis }) {
  const phases = Object.entries(millis).sort(([, a], [, b]) => a - b);
  const whole = phases.at(-1)?.[1];
  if (!whole) return html`<p class="muted">No phase of its start is known.</p>`;
  return html`<ol class="waterfall">${phases.slice(1).map(([phase, at], index) => {
    const from = phases[index][1];
    return html`<li key=${phase}>
      <span class="phase">${PHASES[phase] ?? phase}</span>
      <span class="track" aria-hidden="true"><span class="span" style=${{ marginLeft: `${(100 * from) / whole}%`, width: `${Math.max(0.5, (100 * (at - from)) / whole)}%` }}></span></span>
      <span class="number">+${at - from} ms</span><span class="number muted">${at} ms</span>
    </li>`;
  })}</ol>`;
}

/** The states in their order, as a bar and as a list. Of an engine that is `over`, Linkis's last state may be ShuttingDown. */
function Timeline({ transitions: found, over, now }) {
  if (!found.length) return html`<p class="muted">No state is known.</p>`;
  const transitions = found.map((one, at) => (over && at === found.length - 1 && !FINAL.has(one.state) ? { ...one, state: "Stopped" } : one));
  const begin = Date.parse(transitions[0].at);
  const last = transitions.at(-1);
  const end = FINAL.has(last.state) ? Date.parse(last.at) : now;
  const rows = transitions.map((one, at) => {
    const until = at + 1 < transitions.length ? Date.parse(transitions[at + 1].at) : end;
    return { ...one, seconds: Math.max(0, (until - Date.parse(one.at)) / 1000), final: FINAL.has(one.state) };
  });
  const whole = Math.max(1, (end - begin) / 1000);
  return html`
    <div class="timeline" aria-hidden="true">${rows.filter((row) => !row.final).map((row, at) => html`<span key=${at} class=${`t-${row.state.toLowerCase()}`}
      style=${{ flexGrow: Math.max(row.seconds / whole, 0.004) }} title=${`${row.state}, ${duration(row.seconds)}`}></span>`)}</div>
    <${Table} caption="States" rows=${[...rows].reverse()} keyOf=${(row) => `${row.at} ${row.state}`} columns=${[
      ["State", (row) => html`<${State} state=${row.state} />`],
      ["Since", (row) => moment(row.at), "time"],
      ["Lasted", (row) => (row.final ? "" : duration(row.seconds)), "number"],
      ["Reason", (row) => row.reason],
      ["", (row) => inWords(row.message)],
    ]} />`;
}

/** Whether it took a pod of a warm pool, and why not. */
function started({ kind, coldBecause }) {
  if (kind === "warm") return "It took a pod of its plugin's warm pool.";
  return coldBecause ? `It started cold. ${coldBecause}` : "";
}

function Summary({ engine, row, now }) {
  const seen = `${engine.status} ${engine.statusSince} ${engine.reason}`;
  const explained = useRead((signal) => call("explainEngine", { query: { engineId: engine.engineId }, signal }), [engine.engineId, seen]);
  const states = useRead((signal) => call("listTransitions", { query: { engineId: engine.engineId }, signal }), [engine.engineId, seen]);
  const why = explained.data;
  return html`
    <${Facts} items=${[
      ["Type", `${engine.engineType} ${engine.engineVersion}`], ["User", engine.user], ["Creator", engine.creator], ["Tenant", row?.tenant],
      ["Cores", row && cores(row.cpuMilli)], ["Memory", row?.memoryBytes ? bytes(row.memoryBytes) : ""],
      ["Created", engine.createTime && `${moment(engine.createTime)} (${age(engine.createTime, now)} ago)`],
      ["Ended", moment(engine.finishedTime)], ["Node", engine.nodeName], ["Pod", engine.podName], ["Attempt", engine.attempt ? engine.attempt + 1 : null],
      ["Service instance", engine.serviceInstance], ["ECM", engine.ecmInstance], ["Ticket", engine.ticketId], ["Linkis's label", engine.labelValue],
      ["Log folder", engine.logDirSuffix], ["Claimed by", engine.claimed ? engine.claimedBy : null], ["Held until", engine.claimed ? moment(engine.claimedUntil) || "no time ends it" : null],
      ["Labels", row && Object.entries(row.labels).map(([name, value]) => `${name}=${value}`).join(", ")],
    ]} />
    <h2>Why, and what comes next</h2>
    <${Failure} error=${explained.error} again=${explained.again} />
    ${explained.loading && html`<p class="muted">Asking …</p>`}
    ${why && html`${!engine.message && html`<p>${visible(inWords(why.summary))}</p>`}
      ${engine.message && engine.claimed && html`<p>It is claimed by ${visible(engine.claimedBy ?? "somebody")}${engine.claimedUntil ? ` until ${moment(engine.claimedUntil)}` : ""}: others who ask for an engine do not get it.</p>`}
      ${why.cullBlockedBy && html`<p>It is not ended for idleness: ${why.cullBlockedBy}.</p>`}
      ${why.deadlines.length > 0 && html`<${Table} caption="Deadlines" rows=${why.deadlines} keyOf=${(one) => one.name} columns=${[
        ["When", (one) => moment(one.at)], ["In", (one) => duration((Date.parse(one.at) - now) / 1000), "number"], ["What", (one) => one.what], ["Set by", (one) => one.name],
      ]} />`}
      ${why.restartPolicy && html`<p class="muted">Restarts: ${why.restartPolicy}, ${why.attemptsAllowed} attempt${why.attemptsAllowed === 1 ? "" : "s"} allowed.</p>`}
      ${why.lastEnd && html`<p>Its attempt before ended as ${why.lastEnd.reason ?? "unknown"}: ${visible(inWords(why.lastEnd.message))}</p>`}`}
    <h2>States</h2>
    <${Failure} error=${states.error} again=${states.again} />
    ${states.data && html`<${Timeline} transitions=${states.data.transitions} over=${FINAL.has(engine.status)} now=${now} />`}
    <h2>Start</h2>
    ${engine.message && started(engine.startup ?? {}) && html`<p class="muted">${visible(started(engine.startup))}</p>`}
    <${Waterfall} millis=${engine.startupMillis ?? {}} />
    ${why && why.conditions.length > 0 && html`<h2>Conditions</h2>
      <${Table} caption="Conditions" rows=${[...why.conditions].sort((a, b) => String(b.lastTransitionTime).localeCompare(String(a.lastTransitionTime)))} keyOf=${(one) => one.type} columns=${[
        ["Since", (one) => moment(one.lastTransitionTime)], ["Condition", (one) => one.type], ["Is", (one) => one.status], ["Reason", (one) => one.reason], ["", (one) => inWords(one.message)],
      ]} />`}`;
}

function Usage({ engine, row, live, readOnly }) {
  const points = useRef([]);
  const query = { engineId: engine.engineId };
  const usage = useRead(async (signal) => {
    // Without its resource nobody has what it was given.
    if (!row) return null;
    const found = await call("getResourceUsage", { query, signal });
    if (live && found.used) points.current = [...points.current, { at: Date.now() / 1000, memory: found.used.memoryBytes, cpu: found.used.cpuSeconds }].slice(-USAGE_POINTS);
    return found;
  }, [engine.engineId, live, Boolean(row)], live ? USAGE_SECONDS : 0);
  const metrics = useRead((signal) => call("getEngineMetrics", { query, signal }), [engine.engineId, engine.status]);
  // Of an ended engine, what it last reported is in its post-mortem; where there is none, nothing is known.
  const kept = useRead(async (signal) => {
    if (live) return null;
    try {
      return (await call("getPostMortem", { query, signal })).bundle;
    } catch (error) {
      if (error.http >= 400 && error.http < 500) return null;
      throw error;
    }
  }, [engine.engineId, live]);
  const curve = points.current;
  const load = curve.map((point, at) => (at ? Math.max(0, (point.cpu - curve[at - 1].cpu) / (point.at - curve[at - 1].at)) : null));
  const requested = usage.data?.requested ?? {};
  const used = live ? usage.data?.used : { ...usage.data?.used, ...kept.data?.usage };
  const counted = metrics.data;
  const times = [["Idle", counted?.totalIdleTimeMills], ["Busy", counted?.totalBusyTimeMills], ["Locked", counted?.totalLockTimeMills]];
  const figures = [...times.map(([name, millis]) => [name, figure(millis, (one) => duration(one / 1000))]),
    ["Tasks started", counted?.tasksStarted], ["Succeeded", counted?.tasksSucceeded], ["Failed", counted?.tasksFailed]];
  return html`
    <${Failure} error=${usage.error ?? kept.error} again=${() => (usage.again(), kept.again())} />
    ${!live && !kept.loading && html`<p class="muted">${kept.data?.lastReport ? `As it was last reported, ${moment(kept.data.lastReport)}.` : "It has ended, and nothing is kept of its last report."}</p>`}
    <${Facts} items=${[
      ["Memory used", figure(used?.memoryBytes, bytes)], ["Memory at most", used?.memoryPeakBytes ? bytes(used.memoryPeakBytes) : ""], ["Memory given", requested.memory],
      ["Processor time", figure(used?.cpuSeconds, duration)], ["Cores given", requested.cpu], ["Cores at most", requested.cpuLimit], ["Measured by", live ? used?.source : ""],
    ]} />
    ${live && curve.length > 2 && html`
      <h2>Memory since this page was opened</h2>
      <${Curve} label="Memory in MiB" at=${curve.map((one) => one.at)} lines=${[["MiB", curve.map((one) => one.memory / (1 << 20))]]} />
      <h2>Cores in use</h2>
      <${Curve} label="Cores" at=${curve.map((one) => one.at)} lines=${[["cores", load]]} />`}
    ${live && curve.length <= 2 && html`<p class="muted">Measuring: the curve begins after ${2 * USAGE_SECONDS} s.</p>`}
    <h2>Time and tasks</h2>
    <${Failure} error=${metrics.error} again=${metrics.again} />
    ${counted && (figures.some(([, value]) => value !== null && value !== undefined) ? html`<${Facts} items=${figures} />` : html`<p class="muted">Nothing is kept of its times and tasks.</p>`)}
    ${live && !readOnly && html`<${Resize} engine=${engine} requested=${requested} />`}`;
}

/** A figure as text; null where nobody knows it. */
const figure = (value, text) => (value === null || value === undefined ? null : text(value));

function Resize({ engine, requested }) {
  const [memory, setMemory] = useState("");
  const [cpu, setCpu] = useState("");
  const [done, setDone] = useState("");
  return html`<h2>More or less</h2>
    <p class="muted">Changes the running pod in place; nothing restarts. Empty fields stay as they are.</p>
    <div class="buttons">
      <label>Memory <input size="8" value=${memory} placeholder=${requested?.memory ?? ""} onInput=${(event) => setMemory(event.target.value)} /></label>
      <label>Cores <input size="8" value=${cpu} placeholder=${requested?.cpu ?? ""} onInput=${(event) => setCpu(event.target.value)} /></label>
      <${Action} disabled=${!memory.trim() && !cpu.trim()} run=${async () => {
        setDone("");
        const resources = Object.fromEntries([["memory", memory.trim()], ["cpu", cpu.trim()]].filter(([, value]) => value));
        const { after } = await call("updateResource", { body: { engineId: engine.engineId, resources } });
        setDone(`It has ${after.cpu ?? "no set number of"} cores and ${after.memory ?? "no set"} memory now.`);
      }}>Resize<//>
      ${done && html`<span role="status">${done}</span>`}
    </div>`;
}

function PostMortem({ engine }) {
  const found = useRead((signal) => call("getPostMortem", { query: { engineId: engine.engineId }, signal }), [engine.engineId, engine.status]);
  const kept = found.data;
  const pod = kept?.bundle?.pod ?? {};
  const list = kept?.bundle?.events;
  const ran = kept?.bundle?.execution?.code;
  const peak = kept?.bundle?.usage?.memoryPeakBytes;
  const file = (name) => (TYPES.includes(name) ? html`<a href=${`#/engine/${encodeURIComponent(engine.engineId)}?${new URLSearchParams({ tab: "log", log: name })}`}>${name}</a>` : name);
  return html`
    <${Failure} error=${found.error} again=${found.again} />
    ${found.loading && html`<p class="muted">Reading the archive …</p>`}
    ${kept && html`
      <p>${visible(inWords(String(kept.bundle.message || `It ended as ${engine.status}.`)))}</p>
      <${Facts} items=${[["Reason", kept.bundle.reason], ["Collected", moment(kept.bundle.collectedAt)], ["Attempt", `${kept.attempt + 1} of ${kept.attempts.length}`], ["Pod", kept.bundle.podName], ["Pod's phase", pod.phase], ["Node", pod.node], ["Memory at most", peak ? bytes(peak) : ""], ["Last report", moment(kept.bundle.lastReport)]]} />
      ${typeof ran === "string" && ran && html`<h2>What ran when it ended</h2><pre class="code">${visible(ran)}</pre>`}
      ${kept.missing.length > 0 && html`<${Notice} kind="warning">Not kept: ${kept.missing.join("; ")}.<//>`}
      <h2>Files</h2>
      <${Table} caption="Files" rows=${Object.entries(kept.files)} keyOf=${([name]) => name} columns=${[["File", ([name]) => file(name)], ["Size", ([, size]) => bytes(size), "number"]]} empty="No file is kept." />
      ${Array.isArray(list) && html`<h2>Events</h2><${Table} caption="Events of the pod" rows=${list} columns=${[
        ["When", (one) => moment(one.time), "time"], ["Type", (one) => one.type], ["Reason", (one) => one.reason], ["Times", (one) => one.count, "number"], ["", (one) => one.note],
      ]} empty="No event is kept." />`}
      ${Array.isArray(pod.conditions) && html`<h2>Conditions of the pod</h2><${Table} caption="Conditions of the pod" rows=${pod.conditions} keyOf=${(one) => one.type} columns=${[
        ["Since", (one) => moment(one.lastTransitionTime)], ["Condition", (one) => one.type], ["Is", (one) => one.status], ["Reason", (one) => one.reason ?? ""],
      ]} />`}
      <details><summary>All of it as JSON</summary><pre class="log">${visible(JSON.stringify(kept.bundle, null, 2))}</pre></details>`}`;
}

const STOP = "Stop the engine";
const AT_ONCE = "Interrupt its task and stop";

function Actions({ engine, readOnly }) {
  const [dialog, ask] = useConfirm();
  const final = FINAL.has(engine.status);
  if (readOnly || final) return null;
  const command = (name) => call("sendEngineCommand", { body: { engineId: engine.engineId, command: name }, seconds: 160 }).then((answer) => {
    if (answer.isError) throw new Error(answer.errorMsg || "The engine has refused it.");
  });
  return html`<div class="buttons">${dialog}
    ${engine.available && html`<a class="button" href=${`#/run/${addressOf(engine)}`}>Run code</a>`}
    ${engine.status === "Busy" && html`<${Action} run=${() => command("interrupt")}>Interrupt<//>`}
    ${engine.available && html`<${Action} run=${async () => {
      if (await ask("Restart the kernel?", "The engine gets a new kernel. Everything in its memory is lost, and a running task is cancelled.", "Restart")) await command("restartKernel");
    }}>Restart kernel<//>`}
    ${engine.stopRequested
      ? html`<span class="muted" role="status">It is being stopped.</span>`
      : html`<${Action} kind="danger" run=${async () => {
          const busy = engine.status === "Busy";
          const wait = busy ? `It takes no new code at once. Its running task may go on for its plugin's stopGrace (30 s unless the platform has set another) and is interrupted then. “${AT_ONCE}” does not wait for it.` : "It takes no new code, and ends at once.";
          const chosen = await ask("Stop this engine?", `${engine.name ?? engine.engineId} ends. ${wait} Its log stays readable as long as the archive keeps it.`, ...(busy ? [AT_ONCE] : []), STOP);
          // Where the task has just ended there is nothing to interrupt: the stop is what was asked for.
          if (chosen === AT_ONCE) await command("interrupt").catch(() => {});
          if (chosen) await call("terminateEngine", { body: { engineId: engine.engineId } });
        }}>Stop<//>`}
  </div>`;
}

/** Of an engine that somebody stopped, Linkis's record keeps ShuttingDown for ever: it is over all the same. */
const over = (engine) => (engine.finishedTime && !FINAL.has(engine.status) ? { ...engine, status: "Stopped", stopRequested: false } : engine);

const TABS = [["summary", "Summary"], ["log", "Log"], ["tasks", "Tasks"], ["usage", "Usage"], ["end", "Post-mortem"]];

export default function Engine({ store, me, argument, query }) {
  const tab = TABS.find(([name]) => name === query.get("tab"))?.[0] ?? "summary";
  const version = useStore(store);
  const now = useNow(1);
  // Its resource's name is asked for, as an author chooses the ticket. Records have an engine by its ticket alone.
  const info = useRef(null);
  const before = useRef(null);
  const gone = store.live && argument.includes("/") && !store.get(argument) && info.current !== null;
  const asked = (gone && info.current.ticketId) || argument;
  const status = useRead(async (signal) => {
    const found = await call("getEngineStatus", { query: { engineId: asked }, signal });
    const own = info.current;
    if (own && (found.user !== own.user || (found.namespace && (found.namespace !== own.namespace || found.name !== own.name)))) {
      throw new CallError("Its resource is gone, and its ticket is another engine's: what is kept of it is in the history.");
    }
    info.current = found;
    return found;
  }, [asked]);
  const known = status.data ?? info.current;
  const listed = store.get(known ? `${known.namespace}/${known.name}` : argument);
  // Another engine may have been made by the same name since.
  const row = listed && (!known || (listed.uid && known.uid ? listed.uid === known.uid : listed.created === known.createTime)) ? listed : null;
  const seen = row ? `${row.status} ${row.since} ${row.reason} ${row.stopping} ${row.node}` : `gone ${store.live}`;
  useEffect(() => {
    if (before.current !== null && before.current !== seen) status.again();
    before.current = seen;
  }, [seen]);
  // Every call about it is by this name.
  const engine = known && over({ ...known, engineId: row?.key ?? asked });
  const name = engine?.name ?? row?.name ?? known?.ticketId ?? "Engine";
  useEffect(() => {
    document.title = `${name} – linkis-ecm`;
  }, [name]);
  if (!engine) {
    return html`<p><a href="#/engines">All engines</a></p><h1>Engine</h1>
      ${status.error ? html`<${Failure} error=${status.error} again=${status.again} />` : html`<p class="muted">Reading …</p>`}`;
  }
  const since = engine.statusSince ?? engine.finishedTime;
  const live = Boolean(row) && !FINAL.has(engine.status);
  return html`
    <p><a href="#/engines">All engines</a></p>
    <div class="title"><h1>${engine.name ?? engine.engineId}</h1><${State} state=${engine.status} stopping=${engine.stopRequested} />
      ${since && html`<span class="muted">${FINAL.has(engine.status) ? `${age(since, now)} ago` : `for ${age(since, now)}`}</span>`}
      <${Actions} engine=${engine} readOnly=${me.readOnly} /></div>
    ${engine.reason && html`<p class=${engine.status === "Failed" ? "notice error" : "muted"}>${visible(inWords(engine.message || `${engine.reason}. ${engine.remedy}`))}</p>`}
    ${status.error && html`<${Failure} error=${status.error} again=${status.again} />`}
    ${store.live && !row && html`<${Notice}>Its resource is gone: this is what the records and the archive have of it.<//>`}
    <${Tabs} label="About this engine" tabs=${TABS} chosen=${tab} choose=${(chosen) => keep({ tab: chosen === "summary" ? "" : chosen })} />
    <div role="tabpanel" id="panel" aria-labelledby=${`tab-${tab}`}><${Guard} key=${tab}>
      ${tab === "summary" && html`<${Summary} engine=${engine} row=${row} now=${now} />`}
      ${tab === "log" && html`<${Log} engine=${engine} live=${live} query=${query} />`}
      ${tab === "tasks" && html`<${TaskList} engine=${engine} seen=${seen} readOnly=${me.readOnly} query=${query} />`}
      ${tab === "usage" && html`<${Usage} engine=${engine} row=${row} live=${live} readOnly=${me.readOnly} />`}
      ${tab === "end" && html`<${PostMortem} engine=${engine} />`}
    <//></div>`;
}
