// Warns before the login ends, and lets the same person log in again without losing what is on the page.

import { duration, now as time } from "./format.js";
import { enterAgain, isFromIssuer } from "./login.js";
import { loginEnds } from "./session.js";
import { html, useEffect, useRef, useState } from "./ui.js";

// Seconds before the end when the reader is warned: enough to log in at an issuer, and few of a login of five minutes.
const WARN_SECONDS = 60;

export function Ending() {
  const [now, setNow] = useState(() => time() / 1000);
  const [token, setToken] = useState("");
  const [error, setError] = useState("");
  const asking = useRef(null);
  useEffect(() => {
    const timer = setInterval(() => setNow(time() / 1000), 1000);
    return () => {
      clearInterval(timer);
      asking.current?.abort();
    };
  }, []);
  const ends = loginEnds();
  if (ends === null || ends - now > WARN_SECONDS) return null;
  const left = Math.round(ends - now);
  const again = async (event) => {
    event.preventDefault();
    // Nobody tells the page that the issuer's window was closed: another click begins anew.
    asking.current?.abort();
    asking.current = new AbortController();
    const { signal } = asking.current;
    setError("");
    try {
      await enterAgain(isFromIssuer() ? null : token, signal);
      setToken("");
      setNow(time() / 1000);
    } catch (failed) {
      if (!signal.aborted) setError(failed.message);
    }
  };
  return html`<form class="notice warning ending" onSubmit=${again}>
    <span><span role="status">${left > 0 ? "Your login ends within a minute. What you have typed is lost then." : "Your login has ended: the next call closes the page."}</span>
      ${left > 0 ? html` <span class="muted" aria-hidden="true">${duration(left)}</span>` : null}
      ${error && html`<span role="alert"> ${error}</span>`}</span>
    <span class="buttons">
      ${!isFromIssuer() && html`<label>New token <input class="secret" size="12" value=${token} onInput=${(event) => setToken(event.target.value)} autocomplete="off" spellcheck="false" /></label>`}
      <button class="small" disabled=${!isFromIssuer() && !token.trim()}>${isFromIssuer() ? "Log in again" : "Go on"}</button></span>
  </form>`;
}
