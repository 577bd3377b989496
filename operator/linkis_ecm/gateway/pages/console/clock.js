// The gateway's time on a page: drawn anew as it goes on, and a word where this computer's clock is another one.

import { clockOff, duration, now } from "./format.js";
import { html, Notice, useEffect, useState, useStore } from "./ui.js";

// Seconds between the two clocks from which on the reader is told.
const TOLD_SECONDS = 60;

/** The gateway's time in milliseconds; the component is drawn again every `seconds`. */
export function useNow(seconds) {
  const [, draw] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => draw((turn) => turn + 1), seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds]);
  return now();
}

export function Clock({ store }) {
  useStore(store);
  const off = clockOff() / 1000;
  if (Math.abs(off) < TOLD_SECONDS) return null;
  // In whole minutes: the gateway's time is known to a second.
  return html`<${Notice} kind="warning">The clock of this computer is ${duration(60 * Math.round(Math.abs(off) / 60))} ${off > 0 ? "behind" : "ahead of"} the gateway's. Ages and periods are counted by the gateway's.<//>`;
}
