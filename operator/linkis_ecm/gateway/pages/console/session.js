// Who is logged in. The secret is in this module's memory alone: no cookie, no storage; a reload forgets it.
// A logout loads the page anew, so that no module keeps anything of the former person for the next one.

let headers = null;
let me = null;
// Seconds since 1970 when the login ends; null where that is not known.
let ends = null;
const listeners = new Set();
// What the page was told by itself before it was loaded anew; only that a person has logged out stays until a login.
const before = history.state?.logout ?? null;
if (before) history.replaceState({ logout: { ...before, sentence: "" } }, "");

/** {sentence, byUser}: why the page was loaded anew, where that was by a logout; null otherwise. */
export const logout = () => before;

/** The gateway's answer to whoAmI; null before a login. */
export const whoIs = () => me;

/** When the login ends, in seconds since 1970; null where nobody knows. */
export const loginEnds = () => ends;

/** The headers of a call; {} before a login. */
export const loginHeaders = () => headers ?? {};

/** Calls `listener` after each login and logout. */
export function onSession(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell() {
  for (const listener of [...listeners]) listener();
}

/** When a token says that it ends. Not proven: what counts is the gateway's word; this is for a warning alone. */
function endOf({ Authorization }) {
  try {
    const { exp } = JSON.parse(atob(Authorization.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    return Number.isFinite(exp) ? exp : null;
  } catch {
    return null;
  }
}

export function logIn(newHeaders, who) {
  headers = newHeaders;
  me = who;
  ends = endOf(newHeaders);
  history.replaceState(null, "");
  tell();
}

/** A newer login of the same person: everything on the page stays. False where it is another person's. */
export function renew(newHeaders, who) {
  if (me === null || who.user !== me.user) return false;
  headers = newHeaders;
  ends = endOf(newHeaders);
  return true;
}

/** Ends the login. What is shown goes at once, and then the page is loaded anew without an address of an engine. */
export function logOut(sentence = "", { byUser = false } = {}) {
  if (headers === null) return;
  headers = null;
  me = null;
  tell();
  history.replaceState({ logout: { sentence, byUser } }, "", location.pathname);
  location.reload();
}
