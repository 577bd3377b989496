// The page: the list of operations with its search, and the operation that the address names (#operationId).

import { el, prose } from "./dom.js";
import { field, fields } from "./schema.js";
import { Login, tryIt, ways } from "./tryit.js";

const main = document.getElementById("main");
const list = document.getElementById("list");
const words = document.getElementById("words");
const count = document.getElementById("count");
const VERBS = ["get", "post", "put", "patch", "delete"];
// The gateway's base address, also behind a proxy that adds a path prefix.
const BASE = location.pathname.replace(/\/docs\/?$/, "");

/** The document's operations in its order, each with what it inherits. */
function operationsOf(doc) {
  const found = [];
  for (const [path, verbs] of Object.entries(doc.paths ?? {})) {
    for (const verb of VERBS.filter((one) => verbs[one])) {
      const given = verbs[verb];
      found.push({
        ...given,
        id: given.operationId ?? `${verb}${path}`,
        path,
        verb,
        tag: given.tags?.[0] ?? "Operations",
        parameters: [...(verbs.parameters ?? []), ...(given.parameters ?? [])],
        security: given.security ?? doc.security ?? [],
        summary: given.summary ?? "",
      });
    }
  }
  return found;
}

/** Groups by tag, in the order of the document's tags; each operation gets the part of its path that is its own. */
function groupsOf(doc, operations) {
  const order = [...new Set([...(doc.tags ?? []).map((tag) => tag.name), ...operations.map((one) => one.tag)])];
  return order
    .map((tag) => {
      const members = operations.filter((one) => one.tag === tag);
      const shared = folder(members.map((one) => one.path));
      for (const one of members) one.name = one.path.slice(shared.length);
      const description = doc.tags?.find((one) => one.name === tag)?.description ?? "";
      return { tag, members, description };
    })
    .filter((group) => group.members.length);
}

/** The folder that all paths have in common, with its last slash. */
function folder(paths) {
  let shared = paths[0]?.slice(0, paths[0].lastIndexOf("/") + 1) ?? "";
  while (!paths.every((path) => path.startsWith(shared))) shared = shared.slice(0, shared.lastIndexOf("/", shared.length - 2) + 1);
  return shared;
}

const badge = (verb) => el("span", { class: `verb ${verb}` }, verb.toUpperCase());

function showList(groups, operations) {
  const links = new Map();
  for (const { tag, members } of groups) {
    const heading = `tag-${tag.replace(/\W+/g, "-")}`;
    list.append(
      el(
        "section",
        { "aria-labelledby": heading },
        el("h2", { id: heading }, tag),
        el(
          "ul",
          {},
          members.map((one) => {
            const link = el("a", { href: `#${one.id}`, title: one.summary }, badge(one.verb), el("span", {}, one.name));
            links.set(one, link);
            return el("li", {}, link);
          }),
        ),
      ),
    );
  }

  const haystacks = new Map(
    operations.map((one) => [
      one,
      [one.verb, one.path, one.summary, one.tag, ...one.parameters.map((parameter) => parameter.name)].join(" ").toLowerCase(),
    ]),
  );
  const shown = () => [...links.values()].filter((link) => !link.parentElement.hidden);
  const narrow = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const [one, link] of links) link.parentElement.hidden = !wanted.every((word) => haystacks.get(one).includes(word));
    for (const section of list.children) section.hidden = !section.querySelector("li:not([hidden])");
    const left = shown().length;
    count.textContent = wanted.length ? `${left} of ${operations.length} operations` : `${operations.length} operations`;
  };
  narrow();
  words.addEventListener("input", narrow);
  document.getElementById("search").addEventListener("submit", (event) => {
    event.preventDefault();
    shown()[0]?.click();
  });

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && !typing) {
      event.preventDefault();
      words.focus();
      words.select();
    } else if (event.key === "Escape" && event.target === words) {
      words.value = "";
      narrow();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && (event.target === words || list.contains(event.target))) {
      event.preventDefault();
      const visible = shown();
      const next = visible.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
      (next < 0 ? words : visible[Math.min(next, visible.length - 1)])?.focus();
    }
  });
  return links;
}

function overview(doc, groups) {
  return [
    el("h1", { tabindex: "-1" }, doc.info.title),
    el("p", { class: "lead" }, prose(doc.info.description ?? "")),
    el("h2", {}, "Login"),
    el("dl", { class: "ways" }, ways(doc).flatMap(({ name, words: told }) => [el("dt", {}, el("code", {}, name)), el("dd", {}, prose(told))])),
    groups.flatMap(({ tag, members, description }) => [
      el("h2", {}, tag),
      description ? el("p", {}, prose(description)) : null,
      el(
        "ul",
        { class: "cards" },
        members.map((one) =>
          el("li", {}, el("a", { href: `#${one.id}` }, badge(one.verb), el("code", {}, one.name)), el("p", {}, prose(one.summary))),
        ),
      ),
    ]),
  ];
}

/** What the operation takes. */
function asks(doc, operation) {
  const parts = [];
  if (operation.parameters.length) {
    const listed = operation.parameters.map(({ name, in: where, required, schema, description }) =>
      field(doc, { name, schema: description ? { ...schema, description } : schema, required, where, asked: true }),
    );
    parts.push(el("h2", { class: "part" }, "Parameters"), el("ul", { class: "fields" }, listed));
  }
  for (const [type, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    parts.push(el("h2", { class: "part" }, "Body ", el("small", {}, type)), shape(doc, schema, true));
  }
  return parts.length ? parts : [el("h2", { class: "part" }, "Parameters"), el("p", { class: "facts" }, "It takes none.")];
}

/** What it answers. */
function answers(doc, operation) {
  const parts = [];
  const all = Object.entries(operation.responses ?? {});
  for (const [code, { description, content = {} }] of all.filter(([one]) => one.startsWith("2"))) {
    parts.push(el("h2", { class: "part" }, `Answer ${code} `, el("small", {}, Object.keys(content).join(", "))), el("p", {}, prose(description)));
    for (const { schema } of Object.values(content)) parts.push(shape(doc, schema, false));
  }
  const refusals = all.filter(([one]) => !one.startsWith("2"));
  if (refusals.length) {
    const listed = refusals.flatMap(([code, { description }]) => [el("dt", {}, code), el("dd", {}, prose(description))]);
    parts.push(el("h2", { class: "part" }, "When it is refused"), el("dl", { class: "refusals" }, listed));
  }
  return parts;
}

/** A body's fields, or its type in one line where it has none. */
function shape(doc, schema, asked) {
  return fields(doc, schema, asked) ?? el("p", { class: "facts" }, schema?.type ? `A ${schema.type}.` : "As it comes.");
}

function details(doc, operation, form) {
  return [
    el("a", { class: "back", href: "#" }, "← All operations"),
    el("h1", { tabindex: "-1", class: "operation" }, badge(operation.verb), operation.name),
    el("p", { class: "path" }, el("code", {}, operation.path)),
    el("p", { class: "lead" }, prose(operation.summary)),
    operation.description ? el("p", {}, prose(operation.description)) : null,
    el("div", { class: "sides" }, el("div", {}, asks(doc, operation)), form.element, el("div", {}, answers(doc, operation))),
  ];
}

async function start() {
  const response = await fetch("openapi.json", { credentials: "omit" });
  if (!response.ok) throw new Error(`openapi.json was answered with HTTP ${response.status}`);
  const doc = await response.json();
  const operations = operationsOf(doc);
  const groups = groupsOf(doc, operations);
  const links = showList(groups, operations);
  const login = new Login(doc);
  document.title = doc.info.title;
  document.getElementById("title").textContent = doc.info.title;
  let form = null;

  const route = (moved) => {
    form?.leave();
    form = null;
    const id = decodeURIComponent(location.hash.slice(1));
    const operation = operations.find((one) => one.id === id);
    for (const [one, link] of links) {
      if (one === operation) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.body.toggleAttribute("data-open", Boolean(operation));
    document.title = operation ? `${operation.name} · ${doc.info.title}` : doc.info.title;
    if (operation) {
      form = tryIt(doc, operation, login, BASE);
      main.replaceChildren(...details(doc, operation, form).filter(Boolean));
    } else {
      main.replaceChildren(...overview(doc, groups).flat().filter(Boolean));
    }
    if (moved) {
      scrollTo(0, 0);
      main.querySelector("h1").focus({ preventScroll: true });
    }
  };
  addEventListener("hashchange", () => {
    if (location.hash !== "#main") route(true);
  });
  route(false);
}

start().catch((error) => {
  main.replaceChildren(el("p", { class: "sentence refused" }, `The page cannot be shown: ${error.message}`));
});
