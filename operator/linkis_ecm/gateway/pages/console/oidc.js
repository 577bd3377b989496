// The login at the company's issuer: OpenID Connect's code flow with PKCE, in a window of its own.
// Verifier and state stay in this page's memory; the issuer's token comes back by the gateway and stays there, too.

import { CallError, page } from "./api.js";
import { CHANNEL, refusal } from "./issuer.js";

// How long the person may take at the issuer's.
const PATIENCE = 10 * 60_000;

const text = (bytes) => btoa(String.fromCharCode(...bytes)).replace(/[+]/g, "-").replace(/[/]/g, "_").replace(/=+$/, "");
const random = () => text(crypto.getRandomValues(new Uint8Array(32)));

/** Where to log in; null where no issuer is set up. Raises CallError. */
export const way = async (signal) => (await page("console/login.json", { signal })).oidc;

/** The issuer's token of whoever logs in there. To be called by a click, as browsers ask for windows. */
export async function token({ issuer, authorizationEndpoint, clientId, scope }, signal, { asksAgain = false } = {}) {
  if (!crypto.subtle) throw new CallError("This login needs https, or a console on localhost: use a token, or ask for TLS (docs/security/hardening.md).");
  const verifier = random();
  const state = random();
  const redirectUri = new URL("console/callback.html", new URL(".", location.href.split("#")[0])).href;
  const address = new URL(authorizationEndpoint);
  const opened = window.open("about:blank", "_blank", "popup,width=520,height=680");
  if (!opened) throw new CallError("The browser has stopped the login's window: allow windows of this page, then try again.");
  const challenge = text(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
  const asked = { response_type: "code", client_id: clientId, redirect_uri: redirectUri, scope, state, code_challenge: challenge, code_challenge_method: "S256" };
  // Whoever has logged out here is asked for the password, and not let in again by the issuer's own session.
  if (asksAgain) asked.prompt = "login";
  for (const [name, value] of Object.entries(asked)) address.searchParams.set(name, value);
  const answer = heard(state, signal);
  opened.location.replace(address.href);
  const { code, error, description, iss } = await answer;
  if (error || !code) throw new CallError(refusal(error, description));
  // RFC 9207: an answer of another issuer is not for this login.
  if (iss !== undefined && iss !== issuer) throw new CallError("The login's answer came from another issuer: log in again.");
  return (await page("console/token", { body: { code, verifier, redirectUri }, signal })).token;
}

/** What the login's window says, with the right state. */
function heard(state, signal) {
  return new Promise((done, fail) => {
    const channel = new BroadcastChannel(CHANNEL);
    const timer = setTimeout(() => end(() => fail(new CallError("The login took too long: try again."))), PATIENCE);
    const end = (then) => {
      clearTimeout(timer);
      channel.close();
      then();
    };
    signal.addEventListener("abort", () => end(() => fail(signal.reason)), { once: true });
    channel.onmessage = ({ data }) => {
      if (data?.state !== state) return;
      // The login's window closes when it knows that somebody has the answer.
      channel.postMessage({ taken: state });
      end(() => done(data));
    };
  });
}
