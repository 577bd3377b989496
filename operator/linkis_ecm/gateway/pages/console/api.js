// Calls to the gateway, and its streams of events. Every failure is an Error whose message is a sentence for people.

import { inWords, learnTime } from "./format.js";
import { logOut, loginHeaders } from "./session.js";

// The page is at <prefix>/console, the API at <prefix>/api: a proxy may put any prefix before both.
const ROOT = new URL(".", location.href.split("#")[0]).href;
const OURS = "api/rest_j/v1/engineconnManager/";
const LINKIS = "api/rest_j/v1/linkisManager/";
// The longest that a call may take which names no limit: more than the gateway's own.
const CALL_SECONDS = 75;
// A stream is cut when nothing comes for so long. The gateway sends a comment every 10 to 15 s.
const SILENT_SECONDS = 45;
// The longest event that is kept: over the gateway's own limit of 20 MiB.
const EVENT_MAX = 24 << 20;

/** A refusal of the gateway, or no answer at all. `http` is 0 where there was none. */
export class CallError extends Error {
  constructor(sentence, { http = 0, status = null, data = null } = {}) {
    super(sentence);
    this.name = "CallError";
    this.http = http;
    this.status = status;
    this.data = data;
  }
}

// What Linkis's sentences repeat in Chinese, in parentheses.
const REPEATED = /\s*\([^()]*\p{Script=Han}[^()]*\)/gu;
const plain = (sentence) => inWords(sentence.replace(REPEATED, "")).replace(/\s+/g, " ").trim();

function address(path, query) {
  const url = new URL(path.startsWith("console/") ? path : path.startsWith("linkis/") ? LINKIS + path.slice(7) : OURS + path, ROOT);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, String(value));
  }
  return url;
}

/** Any answer of the gateway. Raises CallError for a refusal; an aborted call raises its AbortError. */
export async function request(path, { query, body, verb, signal, seconds = CALL_SECONDS, headers = loginHeaders(), extra, type } = {}) {
  const limits = [signal, seconds ? AbortSignal.timeout(seconds * 1000) : null].filter(Boolean);
  let answer;
  const sent = Date.now();
  try {
    answer = await fetch(address(path, query), {
      method: verb ?? (body === undefined ? "GET" : "POST"),
      headers: { ...headers, ...extra, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      signal: limits.length ? AbortSignal.any(limits) : undefined,
    });
  } catch (error) {
    throw unanswered(error, signal, seconds);
  }
  learnTime(answer.headers.get("Date"), sent, Date.now());
  if (!answer.ok) throw await refusal(answer, headers);
  // A proxy's page of its own login comes with 200. The gateway's methods never answer with a page.
  const found = answer.headers.get("Content-Type") ?? "";
  if (found.startsWith("text/html") || (type && !found.startsWith(type))) {
    answer.body?.cancel().catch(() => {});
    throw new CallError("A page came instead of the gateway's answer, from something before the gateway such as a proxy's login: load the console again, or tell whoever runs it.", { http: answer.status });
  }
  return answer;
}

function unanswered(error, signal, seconds) {
  if (signal?.aborted) return error;
  if (error.name === "TimeoutError") return new CallError(`The gateway has not answered within ${seconds} s: try again.`);
  return new CallError("The gateway does not answer: it may be starting anew, or the network is down. Try again in a moment.");
}

async function refusal(answer, headers) {
  let message = null;
  try {
    message = await answer.json();
  } catch {
    message = null;
  }
  if (typeof message?.message !== "string") {
    return new CallError(`HTTP ${answer.status} came from something before the gateway, such as a proxy: try again, or tell whoever runs it.`, { http: answer.status });
  }
  const error = new CallError(plain(message.message), { http: answer.status, status: message.status, data: message.data });
  // The login has expired or was withdrawn: what is shown stays no longer.
  if (answer.status === 401 && headers === loginHeaders()) logOut(`Your session has ended: ${error.message}`);
  return error;
}

/** The `data` of a method's Message. */
export async function call(path, options = {}) {
  const answer = await request(path, options);
  let message;
  try {
    message = await answer.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new CallError("The gateway's answer broke off: try again.");
  }
  if (message?.status !== 0) throw new CallError(plain(String(message?.message ?? "The answer is not the gateway's.")), { http: answer.status, status: message?.status });
  return message.data;
}

/** JSON of an address of the console's own, before a login. Raises CallError. */
export async function page(path, options) {
  const answer = await request(path, { ...options, headers: {}, seconds: 20, type: "application/json" });
  try {
    return await answer.json();
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new CallError("The gateway's answer broke off: try again.");
  }
}

/** Server-sent events, each as {event, data, id}; a comment as {event: ""}. Raises CallError where the stream breaks. */
export async function* events(path, query, signal, extra) {
  const silent = new AbortController();
  let timer = 0;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort(), SILENT_SECONDS * 1000);
  };
  wait();
  try {
    const answer = await request(path, { query, seconds: 0, signal: AbortSignal.any([signal, silent.signal]), extra, type: "text/event-stream" });
    let left = "";
    for await (const piece of pieces(answer)) {
      wait();
      left += piece;
      if (left.length > EVENT_MAX) throw new CallError("The gateway's stream sends something that is too long: it was cut.");
      let cut;
      while ((cut = left.indexOf("\n\n")) >= 0) {
        const event = parsed(left.slice(0, cut));
        left = left.slice(cut + 2);
        yield event;
      }
    }
    // Half an event at the end is dropped: the stream was cut in it.
  } catch (error) {
    if (signal.aborted || error instanceof CallError) throw error;
    throw new CallError("The stream of the gateway broke off.");
  } finally {
    clearTimeout(timer);
    silent.abort();
  }
}

/** The texts of an answer's body as they come. */
export async function* pieces(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  const found = { event: "", data: null, id: null };
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) found.event = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
    else if (line.startsWith("id: ")) found.id = line.slice(4);
  }
  if (data.length) {
    try {
      found.data = JSON.parse(data.join("\n"));
    } catch {
      found.event = "";
    }
  }
  return found;
}
