// An engine's log in windows: a page of lines at a time, or its end as it grows. Never more of it than is shown.

import { call, pieces, request } from "./api.js";
import { bytes, visible } from "./format.js";
import { download } from "./outputs.js";
import { pause, streamed } from "./places.js";
import { Failure, html, keep, Notice, Step, useEffect, useMemo, useRead, useRef, useState, useTyped } from "./ui.js";

const STREAMS = ["stdout", "stderr"];
/** All logs that there can be. Those besides the streams are of engines on the JVM, and of those on YARN. */
export const TYPES = [...STREAMS, "gc", "yarnApp", "udfLog"];
// Types of Linkis's engines that run on the JVM.
const JVM = new Set(["spark", "hive", "flink", "jdbc", "trino", "presto", "seatunnel", "sqoop", "elasticsearch", "openlookeng", "impala", "nebula", "scala", "java", "kotlin"]);
const LINES = 500;
// What a followed log keeps: its last characters.
const FOLLOWED = 512 * 1024;
// A browser holds a download in memory. Above this, a command line is the better reader.
const DOWNLOAD_MAX = 256 << 20;
// Where other tabs have all places for streams: how long one look at the log's end takes, and the pause between two.
const BRIEF_SECONDS = 2;
const PAUSE_SECONDS = 5;
// The stream breaks off when the gateway stops and when its login ends: so often, one time after the other, it is read on
// without a word.
const FAILURES = 5;

/** The line with each word of the search marked. */
function Line({ text, marks }) {
  const line = visible(String(text ?? ""));
  if (!marks.length) return line + "\n";
  const found = line.split(new RegExp(`(${marks.map((one) => one.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`));
  return html`${found.map((part, at) => (at % 2 ? html`<mark key=${at}>${part}</mark>` : part))}${"\n"}`;
}

/** The words of a search: the REST has them with commas between them, and no comma can be in one. */
const wordsOf = (search) => search.split(",").map((one) => one.trim()).filter(Boolean);

/** Which lines are shown, as a sentence. */
function told({ rows, endLine, from, tail, search }) {
  const side = tail ? "counted from the end" : "counted from the beginning";
  if (search) return `${rows || "no"} line${rows === 1 ? "" : "s"} with ${wordsOf(search).map((one) => `“${one}”`).join(" or ")} in lines ${from} to ${Math.max(from, endLine)} ${side}`;
  if (!rows) return from === 1 ? "The log is empty." : "No more lines.";
  if (tail && from === 1) return rows === 1 ? "the last line" : `the last ${rows} lines`;
  return `lines ${from} to ${endLine} ${side}`;
}

/** Which logs are offered: the streams, those that are kept of an ended engine, and the one that the address names. */
function useTypes(engine, live, type) {
  const kept = useRead(async (signal) => {
    if (live) return [];
    try {
      return Object.keys((await call("getPostMortem", { query: { engineId: engine.engineId }, signal })).files);
    } catch {
      // Without a post-mortem the streams are offered: reading them says what is there.
      return [];
    }
  }, [engine.engineId, live]);
  const all = live && JVM.has(engine.engineType);
  return TYPES.filter((name) => STREAMS.includes(name) || name === type || all || kept.data?.includes(name));
}

/** `query`: the address has which log (`log`), the search (`find`), the window (`line`, below 0 counted from the end),
 * and whether it is followed. */
export function Log({ engine, live, query }) {
  const engineId = engine.engineId;
  const asked = query.get("log");
  const type = TYPES.includes(asked) ? asked : "stdout";
  const types = useTypes(engine, live, type);
  const follow = query.get("follow") === "1";
  const search = query.get("find") ?? "";
  const [typed, setTyped] = useTyped("find", search);
  const line = Math.trunc(Number(query.get("line"))) || -1;
  // The first line of the window, counted from the log's end where `tail`, else from its beginning.
  const place = useMemo(() => ({ tail: line < 0, from: Math.abs(line) }), [line]);
  const setPlace = ({ tail: fromEnd, from }) => keep({ line: fromEnd ? (from > 1 ? -from : "") : from });
  const [answered, setAnswered] = useState({ key: "", page: null, error: null });
  const [tail, setTail] = useState("");
  const [error, setError] = useState(null);
  const [note, setNote] = useState("");
  const [turn, setTurn] = useState(0);
  const box = useRef(null);
  // Whether the reader is at the end of the log; a window that is made smaller changes nothing of it.
  const atEnd = useRef(true);
  const following = follow && live;
  // An answer to another question is never shown as the one to this.
  const key = JSON.stringify([engineId, type, search, line, turn]);
  const busy = !following && answered.key !== key;
  const page = busy ? null : answered.page;

  useEffect(() => {
    if (following) return undefined;
    const aborter = new AbortController();
    const query = { engineId, logType: type, onlyKeywords: search };
    Object.assign(query, { fromLine: place.from, lines: LINES, enableTail: place.tail });
    setError(null);
    call("getEngineLogs", { query, signal: aborter.signal })
      .then((found) => {
        setAnswered({ key, page: { ...found, ...place, search }, error: null });
        if (place.tail && place.from === 1 && box.current) requestAnimationFrame(() => (box.current.scrollTop = box.current.scrollHeight));
      })
      // Linkis's sentence begins with the file's path in the pod: what follows is for people.
      .catch((failed) => !aborter.signal.aborted && setAnswered({ key, page: null, error: new Error(failed.message.replace(/^LogFile .*? is not a file\. /, "")) }));
    return () => aborter.abort();
  }, [key, following]);

  useEffect(() => {
    if (!following) return undefined;
    const aborter = new AbortController();
    let text = "";
    let waiting = false;
    let failures = 0;
    const show = () => {
      waiting = false;
      if (aborter.signal.aborted) return;
      setTail(text);
      if (atEnd.current) requestAnimationFrame(() => box.current && (box.current.scrollTop = box.current.scrollHeight));
    };
    atEnd.current = true;
    setTail("");
    setError(null);
    const read = async (cut) => {
      const answer = await request("followEngineLog", { query: { engineId, logType: type, tailBytes: 65536 }, signal: cut, seconds: 0, type: "text/plain" });
      // After a pause the log's end is read again, and takes the place of what was there.
      let found = "";
      for await (const piece of pieces(answer)) {
        failures = 0;
        text = found = (found + piece).slice(-FOLLOWED);
        if (!waiting) {
          waiting = true;
          setTimeout(show, 200);
        }
      }
    };
    (async () => {
      for (let how = ""; how !== "ended"; ) {
        try {
          how = await streamed((cut, brief) => {
            setNote(brief ? `Other tabs of this browser hold its streams: the log is read every ${PAUSE_SECONDS} s.` : "");
            return read(cut);
          }, { signal: aborter.signal, seconds: BRIEF_SECONDS });
          if (how === "brief") await pause(PAUSE_SECONDS, aborter.signal);
        } catch (failed) {
          failures += 1;
          if (aborter.signal.aborted || failures >= FAILURES || (failed.http >= 400 && failed.http < 500)) throw failed;
          await pause(failures * (0.75 + Math.random() / 2), aborter.signal);
        }
      }
      show();
      setNote("The log has ended with its engine.");
    })().catch((failed) => {
      if (aborter.signal.aborted) return;
      show();
      setError(failed.http ? failed : new Error("The log's stream broke off: follow it again."));
    });
    return () => aborter.abort();
  }, [engineId, type, following, turn]);

  const save = async () => {
    setError(null);
    setNote("");
    const query = { emInstance: engine.ecmInstance, instance: engine.serviceInstance, logDirSuffix: engine.logDirSuffix, logType: type };
    try {
      const head = await request("downloadEngineLog", { query, verb: "HEAD" });
      // X-Log-Size where the answer would be packed, whose own length nobody knows beforehand.
      const size = Number(head.headers.get("X-Log-Size") ?? head.headers.get("Content-Length") ?? 0);
      if (size > DOWNLOAD_MAX) {
        setNote(`This log has ${bytes(size)}, more than a page should hold: read it here in windows, or download it by curl with downloadEngineLog (docs/session.md), which goes on where it broke off.`);
        return;
      }
      const answer = await request("downloadEngineLog", { query, seconds: 600 });
      download(await answer.blob(), `${engine.name ?? engineId}-${type}.txt`);
    } catch (failed) {
      setError(failed.http === 400 && !failed.status ? new Error("This log is not there to be downloaded.") : failed);
    }
  };
  const submit = (event) => {
    event.preventDefault();
    setNote("");
    // The same search again reads again.
    if (typed.trim() === search && line === -1 && !follow) setTurn(turn + 1);
    else keep({ find: typed.trim(), line: "", follow: "" });
  };
  const most = page && (page.rows < LINES && !page.search || page.endLine < page.from);
  const before = page && (page.tail ? !most && { tail: true, from: page.endLine + 1 } : page.from > 1 && { tail: false, from: Math.max(1, page.from - LINES) });
  const later = page && (page.tail ? page.from > 1 && { tail: true, from: Math.max(1, page.from - LINES) } : !most && { tail: false, from: page.endLine + 1 });
  const marks = wordsOf(page?.search ?? "");
  const words = wordsOf(typed);

  return html`
    <div class="bar">
      <label>Log <select value=${type} onChange=${(event) => (keep({ log: event.target.value === "stdout" ? "" : event.target.value, line: "" }), setNote(""))}>${types.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>
      <form role="search" class="inline" onSubmit=${submit}>
        <input type="search" aria-label="Only lines with" placeholder="only lines with …" value=${typed} onInput=${(event) => setTyped(event.target.value)} maxlength="1000" aria-describedby="commas" />
        <button class="small">Search</button>
      </form>
      ${live && html`<label><input type="checkbox" checked=${follow} onChange=${() => (setNote(""), setTyped(""), keep({ follow: follow ? "" : "1", find: "", line: "" }))} /> follow</label>`}
      <button type="button" class="small" onClick=${save}>Download</button>
    </div>
    <p class="muted hint" id="commas" role="status">${words.length > 1 ? `A comma separates words: lines with ${words.map((one) => `“${one}”`).join(" or ")}. No word can have a comma.` : ""}</p>
    ${note && html`<${Notice}>${note}<//>`}
    <${Failure} error=${error ?? (busy || following ? null : answered.error)} again=${() => setTurn(turn + 1)} />
    ${!following && html`<div class="buttons pager">
      <${Step} on=${!busy} go=${() => setPlace({ tail: false, from: 1 })}>First lines<//>
      <${Step} on=${before} go=${() => setPlace(before)}>Earlier<//>
      <${Step} on=${later} go=${() => setPlace(later)}>Later<//>
      <${Step} on=${!busy} go=${() => (place.tail && place.from === 1 ? setTurn(turn + 1) : setPlace({ tail: true, from: 1 }))}>Last lines<//>
      <span class="muted" role="status">${busy ? (search ? "Searching …" : "Reading …") : page ? told(page) : ""}</span>
    </div>`}
    <pre class="log" ref=${box} onScroll=${({ target }) => (atEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < 60)} tabindex="0" role="log" aria-live="off" aria-busy=${String(busy)} aria-label=${`Log ${type}`}>${following
      ? visible(tail) || "Waiting for the log …"
        : Array.isArray(page?.logs) && page.logs.map((line, at) => html`<${Line} key=${at} text=${line} marks=${marks} />`)}</pre>`;
}
