// The form that sends a call to this gateway and shows its answer. Tokens stay in the fields: nothing is stored.

import { el } from "./dom.js";
import { example, typeOf } from "./schema.js";

// Characters of an answer that are shown; of a longer stream the last ones.
const SHOWN = 256 * 1024;

/** Values by field name that earlier calls had or answered, so that the next call is filled in. */
const remembered = new Map();

/** The fields to log in with, one for each way of the document. They outlive each operation's form. */
export class Login {
  constructor(doc) {
    this.inputs = new Map();
    this.element = el("fieldset", {}, el("legend", {}, "Login"));
    for (const [key, scheme] of Object.entries(doc.components?.securitySchemes ?? {})) {
      const name = scheme.type === "apiKey" ? scheme.name : "Bearer";
      const secret = key !== "tokenUser";
      // Hidden by style instead of a password field: a browser would offer to save a password.
      const input = el("input", {
        id: `login-${key}`,
        type: "text",
        class: secret ? "secret" : null,
        autocomplete: "off",
        spellcheck: "false",
      });
      this.inputs.set(key, { scheme, name, input, secret });
      this.element.append(
        el("div", { class: "entry" }, el("label", { for: input.id }, name), input, el("small", {}, scheme.description ?? "")),
      );
    }
    this.element.append(el("small", {}, "Kept in these fields alone: a reload forgets them."));
  }

  /** The headers for an operation; `hidden` puts a shell variable where a secret would be. */
  headers(security, hidden = false) {
    const allowed = new Set(security.flatMap((way) => Object.keys(way)));
    const found = {};
    for (const [key, { scheme, name, input, secret }] of this.inputs) {
      const typed = input.value.trim();
      if (!allowed.has(key) || !typed) continue;
      const shown = hidden && secret ? `$${name.toUpperCase().replace("-", "_")}` : typed;
      if (scheme.type === "apiKey") found[name] = shown;
      else found.Authorization = `Bearer ${shown}`;
    }
    return found;
  }
}

/** The form of one operation: `element`, and `leave()` for when another one is shown. */
export function tryIt(doc, operation, login, base) {
  const inputs = new Map();
  let aborter = null;

  const entry = (parameter) => {
    const id = `parameter-${parameter.name}`;
    const schema = parameter.schema ?? {};
    const options = schema.enum ?? (schema.type === "boolean" ? [true, false] : null);
    const input = options
      ? el("select", { id }, el("option", { value: "" }, ""), options.map((one) => el("option", {}, String(one))))
      : el("input", { id, type: "text", autocomplete: "off", spellcheck: "false", placeholder: hint(schema) });
    if (parameter.required) input.value = remembered.get(parameter.name) ?? "";
    inputs.set(parameter, input);
    return el(
      "div",
      { class: "entry" },
      el("label", { for: id }, parameter.name, parameter.required ? el("span", { class: "required" }, " required") : null),
      input,
    );
  };

  const content = operation.requestBody?.content ?? {};
  const [contentType] = Object.keys(content);
  const body = contentType ? el("textarea", { id: "body", spellcheck: "false", rows: "9" }) : null;
  if (body) {
    const started = example(doc, content[contentType].schema, (name) => remembered.get(name));
    body.value = JSON.stringify(started, null, 2);
    body.rows = Math.min(18, Math.max(6, body.value.split("\n").length + 1));
  }

  const send = el("button", { type: "submit", class: "send" }, `Send ${operation.verb.toUpperCase()}`);
  const stop = el("button", { type: "button", hidden: true, on: { click: () => aborter?.abort() } }, "Stop");
  const curl = el("pre", { class: "curl", tabindex: "0", "aria-label": "The same call with curl" });
  // A screen reader announces the status when it changes, and reads the body on request.
  const status = el("div", { role: "status" });
  const output = el("pre", { tabindex: "0", hidden: true, "aria-label": "Body of the answer" });

  /** The call as it stands in the form. Throws Error with a sentence where it cannot be sent. */
  const asked = (hidden) => {
    let path = operation.path;
    const query = new URLSearchParams();
    for (const [parameter, input] of inputs) {
      const typed = input.value;
      if (parameter.in === "path") {
        if (!typed) throw new Error(`${parameter.name} is empty: fill it in, it is a part of the path`);
        path = path.replace(`{${parameter.name}}`, encodeURIComponent(typed));
      } else if (typed !== "") {
        query.append(parameter.name, typed);
      }
    }
    const text = query.toString();
    const headers = login.headers(operation.security, hidden);
    if (body) headers["Content-Type"] = contentType;
    return { url: base + path + (text ? `?${text}` : ""), headers, body: body?.value };
  };

  const refresh = () => {
    try {
      curl.textContent = asCurl(operation, asked(true));
    } catch (error) {
      curl.textContent = error.message;
    }
  };

  const submit = async () => {
    aborter?.abort();
    const mine = new AbortController();
    aborter = mine;
    output.hidden = true;
    try {
      if (body) remember(parsed(body.value));
      for (const [parameter, input] of inputs) remember({ [parameter.name]: input.value });
      const call = asked(false);
      stop.hidden = false;
      status.replaceChildren(el("p", { class: "note" }, "Sent …"));
      await show(status, output, operation, call, mine.signal);
    } catch (error) {
      if (aborter !== mine) return;
      const stopped = mine.signal.aborted;
      status.replaceChildren(el("p", { class: stopped ? "note" : "sentence refused" }, stopped ? "Stopped." : error.message));
    } finally {
      if (aborter === mine) stop.hidden = true;
    }
  };

  const element = el(
    "form",
    {
      class: "try",
      novalidate: true,
      "aria-label": `Try ${operation.name}`,
      on: {
        submit: (event) => {
          event.preventDefault();
          submit();
        },
        input: refresh,
      },
    },
    el("h2", { class: "part" }, "Try it"),
    login.element,
    operation.parameters.length ? el("fieldset", {}, el("legend", {}, "Parameters"), operation.parameters.map(entry)) : null,
    body ? el("fieldset", {}, el("legend", {}, "Body"), el("label", { for: "body" }, contentType), body) : null,
    el("div", { class: "buttons" }, send, stop),
    el("section", { class: "answer", "aria-label": "Answer" }, status, output),
    el("details", {}, el("summary", {}, "With curl"), curl),
  );
  refresh();
  return { element, leave: () => aborter?.abort() };
}

function hint(schema) {
  const known = schema.default;
  return known === undefined || known === null || known === "" ? "" : String(known);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`The body is not JSON, so it was not sent: ${error.message}`);
  }
}

/** Keeps the texts of an object by their names. */
function remember(data) {
  if (data === null || typeof data !== "object") return;
  for (const [name, value] of Object.entries(data)) {
    if (typeof value === "string" && value && value.length <= 4096) remembered.set(name, value);
  }
}

/** Sends the call and shows what comes, as it comes. */
async function show(status, output, operation, call, signal) {
  const began = performance.now();
  let response;
  try {
    response = await fetch(call.url, {
      method: operation.verb.toUpperCase(),
      headers: call.headers,
      body: call.body,
      // A cookie could log in another user than these fields name.
      credentials: "omit",
      cache: "no-store",
      signal,
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Error(`The call was not answered: ${error.message}. Is the gateway up, and is each login field one line?`);
  }
  const type = response.headers.get("Content-Type") ?? "";
  const figures = el("p", { class: "figures" });
  const tell = (size, state) => {
    figures.replaceChildren(
      el("strong", { class: response.ok ? "done" : "refused" }, `HTTP ${response.status}`),
      ` · ${Math.round(performance.now() - began)} ms · ${size} bytes${state}`,
    );
  };
  status.replaceChildren(figures);
  output.textContent = "";
  const isJson = type.startsWith("application/json");
  output.hidden = isJson;
  const text = await read(response, (part, size) => {
    tell(size, " · more to come");
    if (!isJson) output.textContent = part;
  });
  tell(text.size, "");
  if (!isJson) return;
  let message = null;
  try {
    if (!text.cut) message = JSON.parse(text.shown);
  } catch {
    // Shown unchanged.
  }
  if (typeof message?.message === "string") {
    const good = message.status === 0;
    status.append(
      el("p", { class: good ? "sentence done" : "sentence refused" }, `status ${message.status}: ${message.message}`),
    );
    remember(message.data);
  }
  output.textContent = message === null ? text.shown : JSON.stringify(message, null, 2);
  output.hidden = false;
}

/** The answer's text: its last part where it is longer than is shown. `told` hears of each piece. */
async function read(response, told) {
  const decoder = new TextDecoder();
  let shown = "";
  let size = 0;
  let cut = false;
  const add = (part) => {
    shown += part;
    if (shown.length > SHOWN) {
      cut = true;
      shown = shown.slice(-SHOWN / 2);
    }
  };
  const reader = response.body?.getReader();
  for (let piece = await reader?.read(); piece && !piece.done; piece = await reader.read()) {
    size += piece.value.length;
    add(decoder.decode(piece.value, { stream: true }));
    told((cut ? "… the earlier part is left out here\n" : "") + shown, size);
  }
  add(decoder.decode());
  return { shown: (cut ? "… the earlier part is left out here\n" : "") + shown, size, cut };
}

function asCurl(operation, call) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const lines = [`curl -X ${operation.verb.toUpperCase()} ${quoted(new URL(call.url, location.href).href)}`];
  for (const [name, value] of Object.entries(call.headers)) {
    // In double quotes where a variable holds the secret.
    lines.push(`-H ${value.includes("$") ? `"${name}: ${value}"` : quoted(`${name}: ${value}`)}`);
  }
  if (call.body) lines.push(`-d ${quoted(call.body)}`);
  return lines.join(" \\\n  ");
}

/** For the overview: what a scheme is called and what it is for. */
export function ways(doc) {
  return Object.values(doc.components?.securitySchemes ?? {}).map((scheme) => ({
    name: scheme.type === "apiKey" ? scheme.name : "Authorization: Bearer",
    words: scheme.description ?? typeOf(doc, {}),
  }));
}
