// The ECM's health as Linkis has it: what it holds and may hold, and drain, after which it takes no new engines.

import { call } from "./api.js";
import { bytes, cores } from "./format.js";
import { Action, Facts, Failure, html, Notice, State, useConfirm, useRead, useState } from "./ui.js";

// What takes engines (Linkis's NodeHealthy); the others take none.
const TAKING = new Set(["Healthy", "WARN"]);

/** `most` is null where nothing limits it: a bar would have no end. */
function Bar({ name, used, most, text }) {
  if (most === null) return html`<li><span>${name}</span><span>${text(used)} in use</span><span class="muted">no limit</span></li>`;
  const words = `${text(used)} of ${text(most)}`;
  return html`<li><span>${name}</span><meter min="0" max=${Math.max(most, used, 1)} value=${used} aria-label=${`${name}: ${words}`}></meter><span class="muted">${words}</span></li>`;
}

export default function Ecm({ me }) {
  if (me.admin) return html`<${Health} me=${me} />`;
  return html`<h1>ECM health</h1><${Notice}>Admins of this gateway see the ECM's health and set it; ${me.user} is none. Your engines are on the other pages.<//>`;
}

function Health({ me }) {
  const [dialog, ask] = useConfirm();
  const found = useRead((signal) => call("linkis/listAllEMs", { signal }), [], 10);
  const nodes = found.data?.EMs ?? [];
  const set = (node, health) => call("linkis/modifyEMInfo", {
    verb: "PUT",
    body: { applicationName: node.applicationName, instance: node.instance, emStatus: health, labels: node.labels.filter((label) => label.modifiable !== false).map(({ labelKey, stringValue }) => ({ labelKey, stringValue })), description: node.description },
  });
  return html`
    <h1>ECM health</h1>
    ${dialog}
    <${Failure} error=${found.error} again=${found.again} />
    ${found.loading && html`<p class="muted">Reading …</p>`}
    ${nodes.map((node) => {
      const { usedResource: used, quota } = node;
      const taking = TAKING.has(node.nodeHealthy);
      return html`<section key=${node.instance}>
        <div class="title"><h2>${node.instance}</h2><${State} state=${node.nodeHealthy} />
          ${!me.readOnly && (taking
            ? html`<${Action} kind="danger" done=${found.again} run=${async () => {
                if (await ask("Drain this ECM?", "It takes no new engines until it is set back. Engines that run go on.", "Drain")) await set(node, "StockUnavailable");
              }}>Drain<//>`
            : html`<${Action} kind="primary" done=${found.again} run=${() => set(node, "Healthy")}>Take engines again<//>`)}
        </div>
        ${!taking && html`<${Notice} kind="warning">Drained: this ECM takes no new engines. Those that run go on.<//>`}
        <ul class="meters">
          <${Bar} name="Cores" used=${node.usedCpuMilli} most=${quota.cpuMilli} text=${(milli) => cores(milli) || "0"} />
          <${Bar} name="Memory" used=${used.memory} most=${quota.memory} text=${bytes} />
          <${Bar} name="Engines" used=${used.instance} most=${quota.instance} text=${String} />
        </ul>
        <p class="muted">What may be held is what the quotas of the ECM's namespace allow.</p>
        <${Facts} items=${[["Tasks that run", node.runningTasks], ["Description", node.description], ["Labels", node.labels.map((label) => `${label.labelKey}=${label.stringValue}`).join(", ")]]} />
      </section>`;
    })}`;
}
