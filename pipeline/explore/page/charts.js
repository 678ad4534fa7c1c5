// The histogram along a direction, the probe's answer, and the bars of regions.

import { byId, plain, plural, signed, svg } from "./base.js";

const WIDTH = 360, HEIGHT = 116, FLOOR = 92;

export function drawHistogram(direction, row, place) {
  const box = byId("histogram"), caption = byId("histogram-box").querySelector("figcaption");
  box.replaceChildren();
  byId("histogram-box").hidden = !direction;
  box.toggleAttribute("hidden", !direction);
  if (!direction) return;
  box.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  const known = direction.positions.filter((p) => p !== null), own = direction.positions[row];
  const [low, high] = [...known, place ?? 0].reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [-3, 3]);
  const x = (value) => 8 + ((value - low) / (high - low)) * (WIDTH - 16);
  const count = Math.max(9, Math.min(36, Math.round(2 * Math.sqrt(known.length)) * 2 + 1));
  const bins = new Array(count).fill(0);
  for (const p of known) bins[Math.min(count - 1, Math.floor(((p - low) / (high - low)) * count))]++;
  const most = Math.max(...bins, 1);
  bins.forEach((n, i) => {
    const left = x(low + ((high - low) * i) / count), tall = (n / most) * (FLOOR - 20);
    if (n) box.append(svg("rect", { x: left + 0.5, y: FLOOR - tall, width: (WIDTH - 16) / count - 1, height: tall, rx: 1.5, fill: "var(--bar)" }));
  });
  box.append(svg("line", { x1: 8, x2: WIDTH - 8, y1: FLOOR, y2: FLOOR, stroke: "var(--line)" }));
  const step = evenStep((high - low) / 3);
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) {
    box.append(svg("text", { x: x(tick), y: HEIGHT - 10, "text-anchor": "middle" }, plain(tick, 0)));
  }
  const line = (value, colour, dash, text) => {
    box.append(svg("line", { x1: x(value), x2: x(value), y1: 14, y2: FLOOR, stroke: colour, "stroke-width": 2.4, "stroke-dasharray": dash }));
    const end = x(value) > WIDTH - 60 ? "end" : x(value) < 60 ? "start" : "middle";
    const words = svg("text", { x: x(value), y: 10, "text-anchor": end, "font-weight": 600 }, text);
    words.style.fill = colour;  // a style attribute would be refused by the page's policy
    box.append(words);
  };
  if (own !== null && own !== undefined) line(own, "var(--muted)", "3 3", Math.abs(own - place) < 0.05 ? "" : "scan");
  if (place !== null) line(place, "var(--accent)", "none", signed(place, 1));
  const below = place === null || !known.length ? null : known.filter((p) => p < place).length / known.length;
  caption.textContent = `Place along ${direction.name} among ${plural(known.length, "scan")} (${direction.unit})`;
  box.setAttribute("aria-label", below === null ? caption.textContent : `${caption.textContent}: ${plain(place, 1)}, above ${Math.round(100 * below)} % of the scans`);
}

// 1, 2, 5, 10, 20 ...: the last that is not above `most`.
function evenStep(most) {
  const ten = 10 ** Math.floor(Math.log10(Math.max(1, most)));
  return [5, 2, 1].map((k) => k * ten).find((k) => k <= most) ?? ten;
}

// The probe's answer at a place: between the two that were computed about it, shares of the nearest.
export function drawAnswer(direction, place) {
  const box = byId("answer"), answer = direction?.answer;
  box.replaceChildren();
  if (!direction || place === null) return;
  if (!answer) { box.append("This direction came without its probe, so there is no answer to show."); return; }
  const [first] = answer.places, last = answer.places[answer.places.length - 1];
  if (place < first || place > last) { box.append("So far out, the probe is not asked."); return; }
  const exact = ((place - first) / (last - first)) * (answer.places.length - 1), at = Math.round(exact), left = Math.min(answer.places.length - 2, Math.floor(exact));
  const between = (values) => values[left] + (exact - left) * (values[left + 1] - values[left]);
  const bold = (text) => Object.assign(document.createElement("b"), { textContent: text });
  const note = (text) => Object.assign(document.createElement("span"), { className: "quiet", textContent: ` (${text})` });
  if (answer.kind === "regression") {
    box.append("Probe: ", bold(plain(between(answer.value), 1)));
    if (answer.low) box.append(` [${plain(between(answer.low), 1)}, ${plain(between(answer.high), 1)}]`);
    box.append(note(answer.interval));
  } else {
    box.append(`Probe: ${answer.classes[1]} with `, bold(`${Math.round(100 * between(answer.value))} %`));
    if (answer.share) {
      const low = answer.low[at], high = answer.high[at];
      const limits = low === null ? "" : ` [${Math.round(100 * low)}, ${Math.round(100 * high)}]`;
      box.append(note(`${answer.interval}: ${Math.round(100 * answer.share[at])} %${limits}`));
    } else box.append(note(answer.interval));
  }
}

export function drawBars(found, words) {
  const box = byId("bars"), caption = byId("bars-box").querySelector("figcaption"), note = byId("bars-note");
  box.replaceChildren();
  note.textContent = "";
  box.toggleAttribute("hidden", !found);
  if (!found) { caption.textContent = words; return; }
  caption.textContent = "Regions that change most";
  const bars = found.bars.slice(0, 7), most = Math.max(...bars.map((b) => Math.abs(b.percent)), 0.5);
  box.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  const middle = 250, reach = 100;
  bars.forEach(({ region, percent }, i) => {
    const y = 2 + i * 16, long = (Math.abs(percent) / most) * (reach - 36), dark = percent < 0;
    box.append(svg("text", { x: 134, y: y + 11, "text-anchor": "end" }, regionName(region)));
    box.append(svg("rect", { x: dark ? middle - long : middle, y: y + 2, width: Math.max(1, long), height: 10, rx: 2, fill: dark ? "var(--low)" : "var(--high)" }));
    box.append(svg("text", { x: dark ? middle - long - 4 : middle + long + 4, y: y + 11, "text-anchor": dark ? "end" : "start" }, signed(percent, 1)));
  });
  box.append(svg("line", { x1: middle, x2: middle, y1: 0, y2: HEIGHT, stroke: "var(--line)" }));
  box.setAttribute("aria-label", bars.map((b) => `${regionName(b.region)} ${signed(b.percent, 1)} percent`).join(", "));
  const [before, after] = found.ventricles_ml || [];
  note.textContent = `Measured: ${found.measure}.` + (before > 0 ? ` Lateral ventricles, by their darkness: ${plain(before, 1)} → ${plain(after, 1)} ml of template space.` : "");
}

const SIDES = { L: "left", R: "right" };

export function regionName(name) {
  const [, stem, side] = /^(.*?)(?:_([LR]))?$/.exec(name);
  return side ? `${stem}, ${SIDES[side]}` : stem;
}
