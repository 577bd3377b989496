// Who may do what: what the gateway knows of the login, and what follows for each thing that can be done here.

import { bytes, cores } from "./format.js";
import { Facts, FINAL, html, Table, useEffect, useState, useStore } from "./ui.js";

const where = (namespaces) => (namespaces === null ? "every namespace of this gateway" : namespaces.join(", ") || "none");

function rights(me) {
  const change = me.readOnly ? "no: the token may only look" : "yes";
  const others = me.admin ? "yes" : me.adminNamespaces.length ? `in ${me.adminNamespaces.join(", ")}` : "no: only an admin may";
  return [
    ["See your own engines, their logs, tasks and results", "yes", "every login"],
    ["See those of others", others, "admins: ECM_ADMINS, the issuer's admin group, or RBAC's impersonate on engineconns"],
    ["Start engines, run code, stop, resize your own", change, "every login that is not read-only"],
    ["The same with engines of others", me.readOnly ? change : others, "admins"],
    ["See the ECM's health", me.admin ? "yes" : "no: only an admin may", "admins of all namespaces"],
    ["Drain the ECM", me.admin ? change : "no: only an admin may", "admins of all namespaces"],
  ];
}

export default function Access({ store, me }) {
  const version = useStore(store);
  const users = new Map();
  for (const row of store.rows.values()) {
    const one = users.get(row.user) ?? { user: row.user, live: 0, ended: 0, cpu: 0, memory: 0, namespaces: new Set() };
    if (FINAL.has(row.status)) one.ended += 1;
    else {
      one.live += 1;
      one.cpu += row.cpuMilli;
      one.memory += row.memoryBytes;
    }
    one.namespaces.add(row.namespace);
    users.set(row.user, one);
  }
  return html`
    <h1>Access</h1>
    <${Facts} items=${[["You are", me.user], ["Admin", me.admin ? "of everything here" : me.adminNamespaces.length ? `in ${me.adminNamespaces.join(", ")}` : "no"], ["Only looking", me.readOnly ? "yes" : "no"],
      ["Your engines may be in", where(me.namespaces)], ["This gateway serves", me.engineNamespaces.join(", ")], ["ECM", me.ecmInstance]]} />
    <h2>What you may do</h2>
    <${Table} caption="What you may do" rows=${rights(me)} keyOf=${([what]) => what} columns=${[["What", ([what]) => what], ["You", ([, may]) => may], ["Who may", ([, , who]) => who]]} />
    <h2>Who holds engines</h2>
    <${Table} caption="Who holds engines" rows=${[...users.values()].sort((a, b) => b.live - a.live || (a.user < b.user ? -1 : 1)).slice(0, 200)} keyOf=${(one) => one.user} empty="Nobody whom you may see." columns=${[
      ["User", (one) => html`<a href=${`#/engines?${new URLSearchParams({ q: `user:${one.user}` })}`}>${one.user}</a>`], ["Live", (one) => one.live, "number"], ["Ended", (one) => one.ended, "number"],
      ["Cores", (one) => cores(one.cpu), "number"], ["Memory", (one) => (one.memory ? bytes(one.memory) : ""), "number"], ["Namespaces", (one) => [...one.namespaces].join(", ")],
    ]} />`;
}
