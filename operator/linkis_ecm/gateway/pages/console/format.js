// Figures and times as people read them. Pure but for the gateway's time.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** 1536 → "1.5 KiB". */
export function bytes(count) {
  if (count === null || count === undefined) return "";
  let size = count;
  let unit = 0;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size >= 100 || Number.isInteger(size) ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

/** Thousandths of a core → "0.5". */
export const cores = (milli) => (milli ? String(milli / 1000) : "");

/** Seconds → "350 ms", "4.2 s", "3 min 5 s", "2 h 10 min", "3 d 4 h". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "";
  if (seconds < 0) seconds = 0;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const parts = [
    [Math.floor(seconds / 86400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [Math.floor(seconds) % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

// Milliseconds by which the gateway's clock is ahead of this computer's.
let offset = 0;

/** The time by the gateway's clock, in milliseconds since 1970. All that is counted from now is counted from this. */
export const now = () => Date.now() + offset;

/** By how many milliseconds the gateway's clock is ahead of this computer's; below 0 where it is behind. */
export const clockOff = () => offset;

/** Learns the gateway's time from an answer: `date` is its header, in whole seconds, written between `sent` and
 * `received` (this computer's time). What is known stays where the answer does not contradict it. */
export function learnTime(date, sent, received) {
  const at = Date.parse(date ?? "");
  if (Number.isFinite(at) && received >= sent) offset = Math.min(Math.max(offset, at - received), at + 1000 - sent);
}

/** How long before `at` (milliseconds) an RFC 3339 time was, in whole seconds. */
export function age(time, at = now()) {
  if (!time) return "";
  const seconds = Math.max(0, Math.floor((at - Date.parse(time)) / 1000));
  return seconds < 60 ? `${seconds} s` : duration(seconds);
}

const CLOCK = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });

/** A time in the reader's own zone, to the second: 2026-11-27 16:05:09. */
export function moment(time) {
  const at = typeof time === "number" ? time * 1000 : Date.parse(time ?? "");
  return Number.isFinite(at) && at > 0 ? CLOCK.format(at) : "";
}

/** Who holds an engine, and until when, as words; "" where nobody does. `claim`: {by, until}, `until` null where no
 * time ends it. */
export function held(claim, at = now()) {
  if (!claim || (claim.until && Date.parse(claim.until) <= at)) return "";
  return claim.until ? `held until ${moment(claim.until)}` : "held, and no time ends it";
}

/** The words of a search, in lower case; "a:b" searches a field. */
export const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

// What a terminal obeys, and what turns a text around: a reader must see that it is there. A line's end and a tab stay.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const COLOUR = /\u001b\[[\d;:]*m/g;

/** A text with each character that would not be seen as a sign: ␛ for an escape, <U+202E> for a turn of direction.
 * Colours of a terminal are left out: they are not shown here. */
export function visible(text) {
  return text
    .replace(/\r\n/g, "\n")
    .replace(COLOUR, "")
    .replace(UNSEEN, (one) => {
      const code = one.charCodeAt(0);
      if (code < 0x20) return String.fromCharCode(0x2400 + code);
      return code === 0x7f ? "\u2421" : `<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`;
    });
}

// Fields of Kubernetes and of the REST, as the console's own forms call them.
const FIELDS = {
  "resources.memory": "“Memory”", "resources.cpu": "“Cores”", "resources.cpuLimit": "“Cores at most”", idleTimeout: "“Ends when idle for”",
  "Token-Code": "“Token”", "Token-User": "“User name”",
};
const FIELD = /\b(?:spec\.)?(resources\.(?:memory|cpuLimit|cpu)|idleTimeout)\b(?!\.)|\b(Token-Code|Token-User)\b/g;
/** A sentence of the gateway or of a status in the words of the console's forms. */
export const inWords = (text) => (text ?? "").replace(FIELD, (name, field, header) => FIELDS[field ?? header] ?? name);

/** How many there are: "1 line", "2 lines". */
export const several = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;
