// Which streams may be open. By HTTP/1.1 a browser has six connections to one host, for all of its tabs together.
// Streams hold four of them at most, so that a click always gets one. A tab that is not seen holds none.

// Places for streams, of all tabs. The last one is for tasks and logs alone: engines are read in turns without it.
const PLACES = 4;
const FOR_ENGINES = 3;
// A tab that is hidden for so long ends its streams. Shorter looks at another tab change nothing.
const HIDDEN_SECONDS = 20;

const cuts = new Set();
let left = false;
let timer = 0;

const cutAll = () => {
  for (const cut of [...cuts]) cut();
};
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (document.hidden) timer = setTimeout(cutAll, HIDDEN_SECONDS * 1000);
});
// A page that is left may be kept for the button Back, with its streams.
addEventListener("pagehide", () => {
  left = true;
  cutAll();
});
addEventListener("pageshow", () => (left = false));

/** Ends when the page is seen, or when the signal is aborted. */
function seen(signal) {
  const waits = () => (document.hidden || left) && !signal.aborted;
  if (!waits()) return null;
  return new Promise((done) => {
    const own = new AbortController();
    const look = () => {
      if (waits()) return;
      own.abort();
      done();
    };
    document.addEventListener("visibilitychange", look, own);
    addEventListener("pageshow", look, own);
    signal.addEventListener("abort", look, own);
  });
}

/** Ends after so many seconds, or when the signal is aborted. */
export function pause(seconds, signal) {
  if (signal.aborted) return null;
  return new Promise((done) => {
    const own = new AbortController();
    const go = () => {
      clearTimeout(end);
      own.abort();
      done();
    };
    const end = setTimeout(go, seconds * 1000);
    signal.addEventListener("abort", go, own);
  });
}

/** A function that gives the place back; null where all are taken. */
async function place(forEngines) {
  // Browsers have locks for https and localhost alone. Elsewhere the tabs that are not seen are the ones that save.
  if (!navigator.locks) return () => {};
  for (let number = 0; number < PLACES; number += 1) {
    const name = forEngines ? number : PLACES - 1 - number;
    if (name >= FOR_ENGINES && forEngines) continue;
    const free = await new Promise((done) => {
      // The lock is held until the promise that its function gives is done: by `release`, or by the end of the tab.
      const held = (lock) => (lock ? new Promise((release) => done(release)) : done(null));
      navigator.locks.request(`linkis-ecm-stream-${name}`, { ifAvailable: true }, held).catch(() => done(null));
    });
    if (free) return free;
  }
  return null;
}

/** Reads a stream by `read(signal, brief)` while the tab is seen. Where no place is free, it is `brief`: it is cut after
 * `seconds`, and to be read again later. Resolves to "ended" where `read` came to its end, to "brief" or "hidden" where
 * it was cut for that. Raises what `read` raises. */
export async function streamed(read, { signal, seconds, forEngines = false }) {
  await seen(signal);
  signal.throwIfAborted();
  const release = await place(forEngines);
  const own = new AbortController();
  const cut = () => own.abort();
  const end = release ? 0 : setTimeout(cut, seconds * 1000);
  cuts.add(cut);
  try {
    signal.throwIfAborted();
    await read(AbortSignal.any([signal, own.signal]), !release);
    return "ended";
  } catch (error) {
    if (signal.aborted || !own.signal.aborted) throw error;
    return document.hidden || left ? "hidden" : "brief";
  } finally {
    clearTimeout(end);
    cuts.delete(cut);
    release?.();
  }
}

const waiting = [];
let busy = false;

function next() {
  if (busy || !waiting.length) return;
  busy = true;
  waiting.sort((one, other) => one.order - other.order);
  waiting.shift().go();
}

/** Runs `run` alone among all that this tab runs so: the smallest `order` of those that wait goes first. */
export async function inTurn(order, signal, run) {
  await new Promise((go, fail) => {
    const entry = { order, go };
    waiting.push(entry);
    signal.addEventListener("abort", () => {
      const at = waiting.indexOf(entry);
      if (at < 0) return;
      waiting.splice(at, 1);
      fail(signal.reason);
    });
    // All that are drawn at once are there first.
    queueMicrotask(next);
  });
  try {
    return await run();
  } finally {
    busy = false;
    next();
  }
}
