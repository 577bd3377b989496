// Curves over time by uPlot, redrawn when their numbers change. A table of the last values is for screen readers.

import uPlot from "./vendor/uplot.mjs";
import { html, useEffect, useLayoutEffect, useRef } from "./ui.js";

const HEIGHT = 180;
const COLOURS = ["--busy", "--good", "--warn", "--bad", "--accent", "--muted"];

let styled = false;
function style() {
  if (styled) return;
  styled = true;
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("vendor/uplot.css", import.meta.url).href;
  document.head.append(link);
}

// Below this span, in seconds, two marks of the axis may have the same minute.
const SHORT = 900;

const last = (shown) => shown.setLegend({ idx: shown.data[0].length - 1 });

/** `at`: Unix seconds; `lines`: [name, values, colour?]; a value may be null. `dots`: values that stand alone. */
export function Curve({ label, at, lines, unit = "", dots = false }) {
  const box = useRef(null);
  const plot = useRef(null);
  const names = lines.map(([name]) => name).join("\u0001");
  useLayoutEffect(() => {
    style();
    const colours = getComputedStyle(document.documentElement);
    const colour = (name) => colours.getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    plot.current = new uPlot(
      {
        width: box.current.clientWidth || 600,
        height: HEIGHT,
        series: [
          { label: "time", value: (_, value) => (value === null ? "" : new Date(value * 1000).toLocaleTimeString("sv-SE")) },
          ...lines.map(([name, , own], index) => ({
            label: name,
            stroke: colour(own ?? COLOURS[index % COLOURS.length]),
            width: 2,
            points: { show: dots, size: 7 },
            paths: uPlot.paths.stepped({ align: 1 }),
            value: (_, value) => (value === null || value === undefined ? "–" : `${Math.round(value * 100) / 100}${unit}`),
          })),
        ],
        axes: [{ ...axis, values: (_, splits) => splits.map((one) => new Date(one * 1000).toLocaleTimeString("sv-SE").slice(0, splits.at(-1) - splits[0] < SHORT ? 8 : 5)), space: 80, incrs: [1, 2, 5, 10, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 14400] }, { ...axis, size: 56 }],
        scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } },
        legend: { live: true },
        // Without a pointer the legend has the last values.
        hooks: { ready: [last], setData: [last], setCursor: [(shown) => shown.cursor.idx ?? last(shown)] },
        cursor: { drag: { x: false, y: false } },
      },
      [at, ...lines.map(([, values]) => values)],
      box.current,
    );
    const measured = new ResizeObserver(([entry]) => plot.current?.setSize({ width: Math.max(200, entry.contentRect.width), height: HEIGHT }));
    measured.observe(box.current);
    return () => {
      measured.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [names]);
  useEffect(() => plot.current?.setData([at, ...lines.map(([, values]) => values)]), [at.length, at.at(-1), at[0], names]);
  const values = lines.map(([name, values]) => `${name} ${values.at(-1) ?? "none"}`).join(", ");
  return html`<figure class="curve" role="img" aria-label=${`${label}, the last values: ${values}`}><div ref=${box} aria-hidden="true"></div></figure>`;
}
