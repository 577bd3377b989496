// The issuer sends the login's window here. It hands what the issuer said to the console's window, and closes when that has it.

import { CHANNEL, refusal } from "./issuer.js";

// How long the console's window may take to say that it has the answer, in milliseconds.
const PATIENCE = 1000;

const said = Object.fromEntries(new URLSearchParams(location.search));
const told = document.getElementById("told");
const refused = said.code ? "" : said.error || said.error_description ? refusal(said.error, said.error_description) : "The issuer has sent neither a code nor a reason.";
// A page of this origin alone hears it; the console takes the answer with its own state, and nobody else has the verifier.
const channel = new BroadcastChannel(CHANNEL);
const timer = setTimeout(() => {
  told.textContent = `${refused || "No window of the console waits for this login: it was closed or loaded anew, or the login took too long."} `;
  const link = document.createElement("a");
  link.href = new URL("../console", location.href).href;
  link.textContent = "To the console";
  told.append(link);
}, PATIENCE);
channel.onmessage = ({ data }) => {
  if (data?.taken === undefined || data.taken !== said.state) return;
  clearTimeout(timer);
  told.textContent = `${refused ? `${refused} ` : ""}You can close this window: the console goes on in its own.`;
  setTimeout(() => window.close(), 200);
};
channel.postMessage({ code: said.code, state: said.state, error: said.error, description: said.error_description, iss: said.iss });
// The code is used once; it does not stay in the address.
history.replaceState(null, "", location.pathname);
