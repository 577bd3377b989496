// The shell: login, navigation, and the page that the address names. Pages besides the list come when they are opened.

import { Clock } from "./clock.js";
import { Ending } from "./ending.js";
import { EngineStore, TURN_SECONDS } from "./store.js";
import { Engines } from "./engines.js";
import { Login } from "./login.js";
import { logOut, onSession, whoIs } from "./session.js";
import { Guard, html, Notice, render, useEffect, useRef, useState, useStore } from "./ui.js";

const PAGES = [
  ["overview", "Overview", () => import("./overview.js")],
  ["engines", "Engines", null],
  ["history", "History", () => import("./history.js")],
  ["run", "Run code", () => import("./run.js")],
  ["tasks", "Tasks", () => import("./tasks.js")],
  ["catalogue", "Catalogue", () => import("./catalogue.js")],
  ["ecm", "ECM health", () => import("./ecm.js")],
  ["access", "Access", () => import("./access.js")],
];

/** The address after "#/": [page, argument, query]. */
function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/");
  let argument = "";
  try {
    argument = decodeURIComponent(rest.join("/"));
  } catch {
    argument = "";
  }
  return { page: page || "engines", argument, query: new URLSearchParams(query ?? "") };
}

function useRoute() {
  const [found, setFound] = useState(route);
  useEffect(() => {
    const changed = () => setFound(route());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return found;
}

/** A page that is fetched when it is first opened. Another page's component never gets this one's properties. */
function Later({ load, props, name }) {
  const [loaded, setLoaded] = useState({ name: "", Page: null, error: "" });
  useEffect(() => {
    let alive = true;
    load().then(
      (module) => alive && setLoaded({ name, Page: module.default, error: "" }),
      () => alive && setLoaded({ name, Page: null, error: "This page's files cannot be loaded: the gateway does not answer. Load the console again in a moment." }),
    );
    return () => (alive = false);
  }, [name]);
  if (loaded.name !== name) return html`<p class="muted">Loading …</p>`;
  return loaded.error ? html`<${Notice} kind="error">${loaded.error}<//>` : html`<${loaded.Page} key=${name} ...${props} />`;
}

/** Says how the stream of states does. */
function Connection({ store }) {
  useStore(store);
  if (store.live && store.shared) return html`<span class="live" role="status" title="Other tabs of this browser hold its streams">read every ${TURN_SECONDS} s</span>`;
  if (store.live) return html`<span class="live" role="status">live</span>`;
  return html`<span class="live off" role="status">${store.problem ? "not live: reconnecting" : "connecting"}</span>`;
}

function Console() {
  const [me, setMe] = useState(whoIs);
  const [left, setLeft] = useState(false);
  const [store, setStore] = useState(null);
  const { page, argument, query } = useRoute();
  const main = useRef(null);

  useEffect(() => onSession(() => {
    setMe(whoIs());
    setLeft(whoIs() === null);
  }), []);
  useEffect(() => {
    if (!me) return undefined;
    const started = new EngineStore();
    setStore(started);
    started.run();
    return () => {
      started.stop();
      setStore(null);
    };
  }, [me]);

  const title = PAGES.find(([name]) => name === page)?.[1] ?? (page === "engine" ? "Engine" : "Not found");
  useEffect(() => {
    // An engine's page writes its name there.
    document.title = me ? `${title} – linkis-ecm` : "linkis-ecm console";
    // A reader's place is the new page's beginning; not where the page opens first.
    if (me && main.current && location.hash) main.current.focus({ preventScroll: true });
  }, [page, argument, me]);

  // The page is loaded anew: nothing is to be typed into this one.
  if (left) return html`<p class="alone">Logged out …</p>`;
  if (!me) return html`<${Login} />`;
  if (!store) return html`<p class="alone">Loading …</p>`;
  const props = { store, me, argument, query };
  const [, , load] = PAGES.find(([name]) => name === page) ?? [];
  let content;
  if (page === "engines") content = html`<${Engines} ...${props} />`;
  else if (page === "engine") content = html`<${Later} name=${`engine ${argument}`} load=${() => import("./engine.js")} props=${props} />`;
  else if (load) content = html`<${Later} name=${page} load=${load} props=${props} />`;
  else content = html`<h1>Not found</h1><p>The console has no page “${page}”: choose one of those on the side.</p>`;

  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}>To the content</a>
    <header>
      <a class="home" href="#/overview"><img src="console/icon.svg" alt="" width="22" height="22" /> linkis-ecm</a>
      <${Connection} store=${store} />
      <span class="who">${me.user}${me.admin ? " (admin)" : ""}${me.readOnly ? " (may only look)" : ""}</span>
      <button type="button" class="small" onClick=${() => logOut("", { byUser: true })}>Log out</button>
    </header>
    <div class="columns">
      <nav aria-label="Pages"><ul>${PAGES.map(([name, text]) => html`<li key=${name}>
        <a href=${`#/${name}`} aria-current=${name === page || (name === "engines" && page === "engine") ? "page" : null}>${text}</a></li>`)}</ul>
        <p class="outside"><a href="docs" target="_blank" rel="noopener">REST methods</a></p>
      </nav>
      <main id="main" ref=${main} tabindex="-1" class=${page === "engines" ? "fill" : ""}><${Clock} store=${store} /><${Ending} /><${Guard} key=${`${page} ${argument}`}>${content}<//></main>
    </div>`;
}

const root = document.getElementById("console");
root.replaceChildren();
render(html`<${Console} />`, root);
