// What the login's window and the console's have in common: how they talk, and an issuer's refusal in words.

import { visible } from "./format.js";

/** The name of their BroadcastChannel. The login's window sends {state, code …}; the console answers {taken: state}. */
export const CHANNEL = "linkis-ecm-login";

// Characters of a reason that are shown, as the gateway has it for its own answers (auth/code_flow.py).
const REASON_CHARS = 300;

/** An issuer's refusal as a sentence. Anybody can write an address with a text of their own: it is cited, in one line. */
export function refusal(error, description) {
  const [said] = [description, error].map((one) => String(one ?? "").replace(/\s+/g, " ").trim()).filter(Boolean);
  if (!said) return "The issuer does not let you in: it says not why";
  return `The issuer does not let you in: ${visible(said.slice(0, REASON_CHARS))}${said.length > REASON_CHARS ? "…" : ""}`;
}
