// The catalogue: which engines can be had, and a form that starts one.

import { call } from "./api.js";
import { bytes, cores } from "./format.js";
import { addressOf } from "./store.js";
import { Dialog, Failure, html, Notice, Table, useRead, useState, useStore } from "./ui.js";

function Start({ plugin, me, close }) {
  const [fields, setFields] = useState({ user: "", creator: "IDE", cpu: "", memory: "", idleTimeout: "" });
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (name) => (event) => setFields({ ...fields, [name]: event.target.value });
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    const given = Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, value.trim()]).filter(([, value]) => value));
    const { cpu, memory, ...rest } = given;
    const body = { engineType: plugin.engineType, engineVersion: plugin.engineVersion, wait: false, ...rest };
    if (cpu || memory) body.resources = { ...(cpu && { cpu }), ...(memory && { memory }) };
    try {
      const engine = await call("createEngineConnection", { body });
      location.hash = `#/engine/${addressOf(engine)}`;
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  const many = me.admin || me.adminNamespaces.length > 0;
  return html`<${Dialog} title=${`Start ${plugin.engineType} ${plugin.engineVersion}`} cancel=${close}>
    <form onSubmit=${submit} class="stack">
      <${Failure} error=${error} />
      ${many && html`<label>User <input value=${fields.user} onInput=${set("user")} placeholder=${me.user} autocomplete="off" /></label>`}
      <label>Creator <input value=${fields.creator} onInput=${set("creator")} autocomplete="off" /></label>
      <label>Cores <input value=${fields.cpu} onInput=${set("cpu")} placeholder=${cores(plugin.cpuMilli) || "as the catalogue has it"} /></label>
      <label>Memory <input value=${fields.memory} onInput=${set("memory")} placeholder=${plugin.memoryBytes ? `${bytes(plugin.memoryBytes)}, written like 2Gi` : "as the catalogue has it"} /></label>
      <label>Ends when idle for <input value=${fields.idleTimeout} onInput=${set("idleTimeout")} placeholder="as the catalogue has it, written like 30m" /></label>
      <div class="buttons"><button type="button" onClick=${close}>Cancel</button><button class="primary" disabled=${busy}>${busy ? "Starting …" : "Start"}</button></div>
    </form>
  <//>`;
}

export default function Catalogue({ store, me }) {
  const found = useRead((signal) => call("listEnginePlugins", { signal }), []);
  const version = useStore(store);
  const [starting, setStarting] = useState(null);
  const counts = new Map();
  for (const row of store.rows.values()) counts.set(`${row.engineType} ${row.engineVersion}`, (counts.get(`${row.engineType} ${row.engineVersion}`) ?? 0) + 1);
  return html`
    <h1>Catalogue</h1>
    <p class="muted">The engines that can be had here: EngineConnPlugins of the cluster.</p>
    <${Failure} error=${found.error} again=${found.again} />
    ${found.loading && html`<p class="muted">Reading …</p>`}
    ${found.data && html`<${Table} caption="Catalogue" rows=${found.data.plugins} keyOf=${(one) => one.name} empty="The catalogue is empty: an admin adds EngineConnPlugins, or sets engines in the chart." columns=${[
      ["Entry", (one) => one.name], ["Type", (one) => one.engineType], ["Version", (one) => `${one.engineVersion}${one.default ? " (default)" : ""}`], ["Languages", (one) => one.runTypes.join(", ")],
      ["Cores", (one) => cores(one.cpuMilli), "number"], ["Memory", (one) => (one.memoryBytes ? bytes(one.memoryBytes) : ""), "number"],
      ["Engines", (one) => counts.get(`${one.engineType} ${one.engineVersion}`) ?? 0, "number"],
      ["Start", (one) => (me.readOnly ? "" : html`<button type="button" class="small" aria-label=${`Start ${one.engineType} ${one.engineVersion}`} onClick=${() => setStarting(one)}>Start</button>`), "act"],
    ]} />`}
    ${me.readOnly && html`<${Notice}>Your token may only look: engines cannot be started with it.<//>`}
    ${starting && html`<${Start} plugin=${starting} me=${me} close=${() => setStarting(null)} />`}`;
}
