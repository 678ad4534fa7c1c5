// What is set below the brain: a slider along a direction or between two people, seeds.

import { byId, element, parseNumber, plain, signed } from "./base.js";
import { REACH } from "./state.js";
import { findScan } from "./words.js";

const SEEDS = 4;

// A slider with a field beside it that takes 1.5 and 1,5 alike.
function slider({ label, value, low, high, step, text, nearest = (v) => v, onMove, onWrong }) {
  const range = element("input", { type: "range", min: low, max: high, step, value, "aria-label": label, id: "slider" });
  const field = element("input", { type: "text", inputmode: "decimal", "aria-label": `${label}, as a number`, id: "slider-field", value: text(value), autocomplete: "off" });
  range.setAttribute("aria-valuetext", text(value));
  const set = (next, from) => {
    if (from !== range) range.value = next;
    if (from !== field) field.value = text(next);
    range.setAttribute("aria-valuetext", text(next));
  };
  range.addEventListener("input", () => { set(Number(range.value), range); onMove(Number(range.value)); });
  field.addEventListener("change", () => {
    const number = parseNumber(field.value);
    const next = number === null ? Number(range.value) : nearest(Math.min(high, Math.max(low, number)));
    onWrong(number === null ? `“${field.value.slice(0, 20)}” is no number; write it as 1.5 or 1,5.` : "");
    set(next, null);
    onMove(next);
  });
  return { range, field, set };
}

export class Controls {
  constructor(page) {
    this.page = page;
    this.timer = 0;
  }

  draw() {
    this.stop();
    const { state, study, source } = this.page, box = byId("controls");
    box.replaceChildren();
    this.slider = null;
    if (state.mode === "move") this.move(box, state, study);
    else if (!source.live) box.append(element("p", { class: "quiet" }, "This needs the models: it is on the page of `pipeline explore`, not in this file."));
    else if (state.mode === "between") this.between(box, state, study);
    else this.seeds(box, state);
  }

  move(box, state, study) {
    const { source } = this.page;
    if (!study.directions.length) {
      box.append(element("p", { class: "quiet" }, "No direction to move along, so this is the brain's own place. `pipeline probe` finds directions; then start this page again."));
      return;
    }
    const choice = element("select", { id: "direction", "aria-label": "Direction", onchange: (e) => this.page.set({ direction: e.target.value }, "controls") });
    for (const d of study.directions) choice.append(element("option", { value: d.name, selected: d.name === state.direction }, d.name));
    const direction = this.page.direction(), kept = this.page.kept;
    this.slider = slider({
      label: `Steps along ${direction.name}, in ${direction.unit}`,
      value: state.scale, low: kept ? kept.scales[0] : -REACH, high: kept ? kept.scales[kept.scales.length - 1] : REACH,
      step: kept ? kept.scales[1] - kept.scales[0] : 0.1,
      text: (v) => signed(v, 2),
      nearest: kept ? (v) => source.nearest({ scale: v }) : undefined,
      onWrong: (words) => this.page.say(words),
      onMove: (v) => this.page.set({ scale: Math.round(v * 1000) / 1000 }, "slider"),
    });
    box.append(
      element("label", {}, "Towards", choice),
      element("span", { class: "wide" }, this.slider.range),
      this.slider.field, element("span", { class: "quiet" }, direction.unit),
      this.playButton(kept ? kept.scales : [-3, -2, -1, 0, 1, 2, 3], "scale"),
      element("button", { type: "button", title: "Back to the scan's own place", onclick: () => this.jump(0) }, "Own place"),
    );
    if (direction.doubt) box.append(element("p", { class: "doubt", id: "doubt" }, `⚠ ${direction.doubt}`));
    else if (direction.figure) box.append(element("p", { class: "quiet" }, `Read by its probe with ${direction.figure}.`));
  }

  between(box, state, study) {
    const choice = element("input", { type: "search", list: "ids", value: state.other || "", id: "other", placeholder: "second scan", "aria-label": "Second scan, B", autocomplete: "off" });
    choice.addEventListener("change", () => {
      const found = findScan(study, choice.value.trim());
      if (found.words) this.page.say(found.words);
      else this.page.set({ other: study.scans[found.row] }, "all");
    });
    const row = study.scans.indexOf(state.scan), visits = this.page.scatter.visits.get(study.subjects[row]) || [];
    const own = element("select", { id: "visit", "aria-label": "A visit of the same person", onchange: (e) => e.target.value && this.page.set({ other: e.target.value }, "all") });
    own.append(element("option", { value: "" }, "a visit of this person"));
    for (const i of visits) if (i !== row) own.append(element("option", { value: study.scans[i], selected: study.scans[i] === state.other }, `${study.scans[i]} (month ${study.months[i]})`));
    box.append(element("label", {}, "A ", element("b", {}, state.scan || "choose a person")), element("label", {}, "B", choice));
    if (own.options.length > 1) box.append(own);
    if (!state.other || state.other === state.scan) {
      box.append(element("p", { class: "quiet" }, "Shift and click a second point on the map, or name it here."));
      return;
    }
    const months = this.page.monthsBetween();
    this.slider = slider({
      label: months ? "Month between the two visits" : "Between A (0) and B (1)",
      value: months ? months[0] + state.alpha * (months[1] - months[0]) : state.alpha,
      low: months ? Math.min(...months) : 0, high: months ? Math.max(...months) : 1, step: months ? Math.abs(months[1] - months[0]) / 100 : 0.01,
      text: (v) => (months ? plain(v, 1) : plain(v, 2)),
      onMove: (v) => this.page.set({ alpha: Math.min(1, Math.max(0, months ? (v - months[0]) / (months[1] - months[0]) : v)) }, "slider"),
      onWrong: (words) => this.page.say(words),
    });
    box.append(element("span", { class: "wide" }, this.slider.range), this.slider.field, element("span", { class: "quiet" }, months ? "months" : "α"),
      this.playButton([0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1], "alpha"));
  }

  seeds(box, state) {
    const isNoise = state.mode === "noise", status = this.page.study.status;
    const words = isNoise
      ? "Brains of nobody: drawn from noise alone."
      : "The same y_sem with other noise: what stays alike, y_sem holds.";
    box.append(element("span", {}, words));
    if (isNoise && status.prior) {
      const prior = element("input", { type: "checkbox", checked: state.prior, onchange: (e) => this.page.set({ prior: e.target.checked }, "controls") });
      box.append(element("label", { class: "check" }, prior, "draw y_sem too, like the training scans'"));
    }
    const field = element("input", { type: "text", inputmode: "numeric", id: "seed", value: state.seed, "aria-label": "Seed" });
    field.addEventListener("change", () => {
      const seed = parseNumber(field.value);
      if (seed !== null && seed >= 0 && seed < 2 ** 31) this.page.set({ seed: Math.round(seed) }, "controls");
      else field.value = state.seed;
    });
    const first = state.seed - (state.seed % SEEDS), thumbs = element("div", { class: "thumbs" });
    box.append(element("label", {}, "Seed", field),
      element("button", { type: "button", onclick: () => this.page.set({ seed: first + SEEDS }, "controls") }, "Next four"), thumbs);
    this.thumbs = [...Array(SEEDS).keys()].map((k) => {
      const seed = first + k, canvas = element("canvas", { width: 66, height: 80 });
      thumbs.append(element("button", { type: "button", "aria-pressed": String(seed === state.seed), "aria-label": `Seed ${seed}`, onclick: () => this.page.set({ seed }, "controls") }, canvas, `seed ${seed}`));
      return { seed, canvas };
    });
  }

  // Small axial pictures of the four seeds, from previews; the chosen one comes first by itself.
  async fillThumbs(maker, brainOfSeed, grid) {
    const thumbs = this.thumbs || [], number = maker.source.number;
    for (const { seed, canvas } of thumbs) {
      if (number !== maker.source.number || !canvas.isConnected) return;
      try {
        const { levels } = await maker.one(brainOfSeed(seed), number);
        drawThumb(canvas, levels, grid);
      } catch { return; }
    }
  }

  jump(value) {
    this.slider.set(value, null);
    this.slider.range.dispatchEvent(new Event("input"));
  }

  playButton(places, name) {
    const button = element("button", { type: "button", id: "play", "aria-pressed": "false", onclick: () => (this.timer ? this.stop() : this.play(places, name, button)) }, "▶ Film");
    this.button = button;
    return button;
  }

  async play(places, name, button) {
    button.textContent = "■ Stop";
    button.setAttribute("aria-pressed", "true");
    const turn = (this.timer = Math.random() + 1);
    for (let i = 0, step = 1; this.timer === turn; i += step) {
      const months = this.page.monthsBetween(), place = places[i];
      this.slider.set(name === "alpha" && months ? months[0] + place * (months[1] - months[0]) : place, null);
      const started = performance.now();
      await this.page.frame({ [name]: place });
      await new Promise((done) => setTimeout(done, Math.max(60, 320 - (performance.now() - started))));
      if (i + step < 0 || i + step >= places.length) step = -step;
    }
    this.page.set({}, "slider");
  }

  stop() {
    this.timer = 0;
    if (!this.button) return;
    this.button.textContent = "▶ Film";
    this.button.setAttribute("aria-pressed", "false");
  }
}

function drawThumb(canvas, levels, grid) {
  const [nx, ny, nz] = grid.shape, small = element("canvas", { width: nx, height: ny });
  const ctx = small.getContext("2d"), image = ctx.createImageData(nx, ny), from = Math.floor(0.55 * nz) * nx * ny;
  for (let j = 0; j < ny; j++) {
    for (let i = 0; i < nx; i++) {
      const grey = levels[from + (ny - 1 - j) * nx + i];
      image.data.set([grey, grey, grey, 255], 4 * (j * nx + i));
    }
  }
  ctx.putImageData(image, 0, 0);
  const target = canvas.getContext("2d"), zoom = Math.min(canvas.width / nx, canvas.height / ny);
  target.drawImage(small, (canvas.width - zoom * nx) / 2, (canvas.height - zoom * ny) / 2, zoom * nx, zoom * ny);
}
