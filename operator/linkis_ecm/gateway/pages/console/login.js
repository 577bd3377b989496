// The login: a token of the gateway with a user's name, a bearer token, or OpenID Connect where it is set up.

import { call, CallError } from "./api.js";
import * as oidc from "./oidc.js";
import { pause } from "./places.js";
import { logIn, logout, renew } from "./session.js";
import { html, Notice, useEffect, useRef, useState } from "./ui.js";

// Seconds to the next question where to log in, while the issuer is away: 2, 4 … 30.
const PATIENCE = 2;
const PATIENCE_MAX = 30;

// The issuer of the login that holds; null where a token was pasted.
let used = null;

/** Whether the login came from the issuer, so that another one can. */
export const isFromIssuer = () => used !== null;

const whoIsThis = (headers) => call("whoAmI", { headers, seconds: 20 });
const bearer = (token) => ({ Authorization: `Bearer ${token}` });

/** Asks whoAmI with these headers, and is logged in where the gateway knows them. Raises CallError. */
async function enter(headers) {
  logIn(headers, await whoIsThis(headers));
}

/** The same person goes on with another login: a token, or the issuer's where `pasted` is null. Raises CallError. */
export async function enterAgain(pasted, signal) {
  const secret = pasted?.trim() ?? (await oidc.token(used, signal));
  if (!isToken(secret)) throw new CallError(NO_TOKEN);
  const headers = bearer(secret);
  if (!renew(headers, await whoIsThis(headers))) throw new CallError("This login is another person's: log out, then log in as that person.");
}

// A header can carry no more than these characters; a token has no others, and the gateway takes no name with others.
const isToken = (text) => /^[\x21-\x7e]+$/.test(text);
const isName = (text) => /^[\x20-\x7e]+$/.test(text);
const NO_TOKEN = "The token has a blank or a character that no token has: copy it again.";

/** Where to log out at the issuer; null where it does not say. */
function endAddress({ endSessionEndpoint, clientId }) {
  if (!endSessionEndpoint) return null;
  const address = new URL(endSessionEndpoint);
  if (!/^https?:$/.test(address.protocol)) return null;
  address.searchParams.set("client_id", clientId);
  return address.href;
}

export function Login() {
  const [way, setWay] = useState("token");
  const [user, setUser] = useState("");
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(logout()?.sentence ?? "");
  const [issuer, setIssuer] = useState(null);
  const [away, setAway] = useState("");
  const first = useRef(null);
  const login = useRef(null);
  useEffect(() => {
    first.current?.focus();
    const aborter = new AbortController();
    const { signal } = aborter;
    (async () => {
      for (let wait = PATIENCE; !signal.aborted; wait = Math.min(2 * wait, PATIENCE_MAX)) {
        try {
          setIssuer(await oidc.way(signal));
          return setAway("");
        } catch (failed) {
          if (signal.aborted) return undefined;
          setAway(failed.message);
        }
        await pause(wait * (0.75 + Math.random() / 2), signal);
      }
      return undefined;
    })();
    return () => {
      aborter.abort();
      login.current?.abort();
    };
  }, []);

  const atIssuer = async () => {
    login.current?.abort();
    login.current = new AbortController();
    const { signal } = login.current;
    setError("");
    try {
      const headers = bearer(await oidc.token(issuer, signal, { asksAgain: logout()?.byUser }));
      used = issuer;
      await enter(headers);
    } catch (failed) {
      used = null;
      if (!signal.aborted) setError(failed.message);
    }
  };

  const submit = async (event) => {
    event.preventDefault();
    const secret = token.trim();
    const name = user.trim();
    if (way === "token" && !name) return setError("Write your user name: the token speaks for that user.");
    if (!secret) return setError("Write a token: whoever runs the gateway has it, or kubectl create token makes one.");
    if (!isToken(secret)) return setError(NO_TOKEN);
    if (way === "token" && !isName(name)) return setError("The user name has a character that cannot be sent: use letters without accents, digits and signs, as the gateway's tokens have them.");
    setBusy(true);
    setError("");
    try {
      await enter(way === "token" ? { "Token-Code": secret, "Token-User": name } : bearer(secret));
    } catch (failed) {
      setError(failed.message);
      setBusy(false);
    }
  };

  return html`<main class="login" id="main">
    <form onSubmit=${submit} aria-labelledby="login-title">
      <img src="console/icon.svg" alt="" width="40" height="40" />
      <h1 id="login-title">linkis-ecm console</h1>
      ${error && html`<${Notice} kind="error">${error}<//>`}
      ${issuer && html`<button type="button" class="primary" onClick=${atIssuer}>Log in at ${new URL(issuer.issuer).host}</button>
        ${logout()?.byUser && html`<p class="muted">You have logged out here. ${endAddress(issuer) ? html`<a href=${endAddress(issuer)} target="_blank" rel="noopener noreferrer">Log out at ${new URL(issuer.issuer).host}, too</a>` : `${new URL(issuer.issuer).host} may still know you: this page asks it for your password at the next login.`}</p>`}
        <p class="muted or">or</p>`}
      ${away && html`<${Notice} kind="warning">The login at your company's issuer is not there now; it is asked for again by itself. ${away}<//>`}
      <fieldset class="ways">
        <legend>Log in with</legend>
        <label><input type="radio" name="way" checked=${way === "token"} onChange=${() => setWay("token")} /> a token of this gateway</label>
        <label><input type="radio" name="way" checked=${way === "bearer"} onChange=${() => setWay("bearer")} /> a token of Kubernetes or of your company's login</label>
      </fieldset>
      ${way === "token" && html`<label for="user">User name</label>
        <input id="user" ref=${first} value=${user} onInput=${(event) => setUser(event.target.value)} autocomplete="off" spellcheck="false" />`}
      <label for="token">Token</label>
      <input id="token" class="secret" value=${token} onInput=${(event) => setToken(event.target.value)} autocomplete="off" spellcheck="false" />
      <button class=${issuer ? "" : "primary"} disabled=${busy}>${busy ? "Logging in …" : "Log in"}</button>
      <p class="muted">The token stays in this page's memory: a reload forgets it, and nothing is stored.</p>
    </form>
  </main>`;
}
