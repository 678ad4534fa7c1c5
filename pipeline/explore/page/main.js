// The page: what is chosen, what is shown, and who is told when it changes.

import { byId, element, isDark, plain, plural, signed } from "./base.js";
import { drawAnswer, drawBars, drawHistogram } from "./charts.js";
import { Controls } from "./controls.js";
import { keptDocument, KeptSource, oldBrowser } from "./kept.js";
import { Maker } from "./maker.js";
import { Panes } from "./panes.js";
import { drawLegend, Scatter } from "./scatter.js";
import { LiveSource } from "./source.js";
import { baseOf, brainOf, linkOf, readLink } from "./state.js";
import { Takeaway } from "./takeaway.js";

const LAYOUTS = { pca: "PCA", tsne: "t-SNE", umap: "UMAP" };
const POLL_MS = 400;

class Page {
  async open() {
    const document = keptDocument();
    this.kept = document;
    this.source = document ? new KeptSource(document) : new LiveSource(new URLSearchParams(location.search).get("token") || "");
    this.source.onLost = (isLost) => this.lost(isLost);
    this.notes = new Map();
    try {
      this.study = await this.source.study();
    } catch (error) {
      this.note("study", error.message);
      return;
    }
    this.study.notes.forEach((text, i) => this.note(`study ${i}`, text));
    this.state = readLink(location.hash, this.study);
    this.grid = this.study.grid;
    this.begin();
    this.panes = new Panes({
      flat: Boolean(document),
      onVoxel: (voxel) => { this.state.voxel = voxel; this.remember(); },
      onNote: (text) => this.note("view", text),
    });
    if (this.state.voxel) this.panes.goTo(this.state.voxel);
    this.panes.isDifferent = this.state.difference;
    this.panes.threshold = this.state.threshold;
    this.maker = new Maker(this.source, {
      onBrain: (found, quality) => this.show(found, quality),
      onError: (error) => this.note("brain", error.message),
      onWork: (quality) => this.working(quality),
    });
    this.controls = new Controls(this);
    this.takeaway = new Takeaway(this);
    this.scatter = new Scatter(byId("points"), this.study, {
      onChoose: (i, isSecond) => this.choose(i, isSecond),
      onHover: (i, point) => this.hover(i, point),
      onGroup: (rows) => this.tellGroup(rows),
    });
    this.listen();
    this.scatter.rings = document ? document.people.map((scan) => this.study.scans.indexOf(scan)) : [];
    this.state.scan ||= document ? document.people[0] : this.study.scans[Math.max(0, this.study.has_volume.indexOf(true))];
    this.state.direction ||= this.study.directions[0]?.name ?? null;
    this.state.colour ||= this.study.labels[0]?.name ?? null;
    byId("colour").value = this.state.colour ?? "";
    this.set({}, "all");
    await Promise.all([this.lay(this.state.layout), this.firstBrain(), this.models()]);
  }

  begin() {
    const { study } = this, people = new Set(study.subjects).size;
    document.title = byId("title").textContent = study.title;
    byId("phantom").hidden = !study.phantom;
    byId("count").textContent = `${plural(people, "person")}, ${plural(study.scans.length, "scan")}`;
    byId("layout").append(...study.layouts.map((kind) => element("option", { value: kind }, LAYOUTS[kind])));
    byId("layout").value = this.state.layout;
    byId("colour").append(...study.labels.map((l) => element("option", { value: l.name }, l.name.replace(/_/g, " "))));
    byId("ids").append(...study.scans.map((scan) => element("option", { value: scan })));
    byId("copy-link").hidden = Boolean(this.kept);
    if (!study.layouts.length) byId("cloud").hidden = byId("axes").hidden = true;
    const old = this.kept && oldBrowser();
    if (old) this.note("old", old.textContent);
  }

  listen() {
    byId("layout").addEventListener("change", (e) => { this.state.layout = e.target.value; this.remember(); this.lay(e.target.value); });
    byId("colour").addEventListener("change", (e) => this.set({ colour: e.target.value }, "map"));
    byId("find").addEventListener("change", (e) => this.find(e.target.value.trim()));
    byId("view").addEventListener("change", (e) => this.set({ view: e.target.value }, "view"));
    byId("against").addEventListener("change", (e) => this.set({ against: e.target.value }, "view"));
    byId("difference").addEventListener("change", (e) => this.set({ difference: e.target.checked }, "overlay"));
    byId("threshold").addEventListener("input", (e) => this.set({ threshold: Number(e.target.value) }, "overlay"));
    byId("copy-link").addEventListener("click", async () => {
      await navigator.clipboard?.writeText(location.href).catch(() => {});
      this.say("The link holds what you see; it works on this computer while the page is served.");
    });
    byId("theme").addEventListener("click", () => this.theme(isDark() ? "light" : "dark"));
    const wished = matchMedia("(prefers-color-scheme: dark)");
    wished.addEventListener("change", () => this.theme(wished.matches ? "dark" : "light"));
    addEventListener("hashchange", () => {
      if (location.hash === linkOf(this.state)) return;
      Object.assign(this.state, readLink(location.hash, this.study));
      this.set({}, "all");
    });
    const tabs = [...document.querySelectorAll("#modes button")];
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => this.set({ mode: tab.dataset.mode }, "all"));
      tab.addEventListener("keydown", (e) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
        if (step) { const next = tabs[(i + step + tabs.length) % tabs.length]; next.focus(); next.click(); }
      });
    });
  }

  theme(name) {
    document.documentElement.dataset.theme = name;
    if (this.scatter) { this.scatter.draw(); drawLegend(this.scatter, this.scatter.label); }
  }

  // `what` changed: all, map, controls, slider, view, overlay.
  set(change, what) {
    Object.assign(this.state, change);
    const { state, study } = this;
    const all = what === "all";
    if (all) {
      for (const tab of document.querySelectorAll("#modes button")) {
        const isOn = tab.dataset.mode === state.mode;
        tab.setAttribute("aria-selected", String(isOn));
        tab.tabIndex = isOn ? 0 : -1;
      }
      this.fillAgainst();
    }
    if (all || what === "controls") this.controls.draw();
    if (all || what === "map" || what === "controls") {
      this.scatter.chosen = study.scans.indexOf(state.scan);
      this.scatter.second = state.mode === "between" && state.other ? study.scans.indexOf(state.other) : null;
      const label = study.labels.find((l) => l.name === state.colour) || null;
      this.scatter.colourBy(label);
      drawLegend(this.scatter, label);
    }
    byId("threshold-out").textContent = `${((100 * state.threshold) / 255).toFixed(1)} %`;
    byId("view").value = state.view;
    byId("difference").checked = state.difference;
    byId("threshold").value = state.threshold;
    if (all || what === "view") { this.panes.compare(state.view); this.reference(); }
    if (what === "overlay" || all) {
      this.panes.isDifferent = state.difference;
      this.panes.threshold = state.threshold;
      if (what === "overlay") this.panes.again();
    }
    this.chart();
    this.takeaway.update();
    this.remember();
    if (["all", "controls", "slider"].includes(what)) this.want();
  }

  direction() { return this.study.directions.find((d) => d.name === this.state.direction) || null; }
  row() { return this.study.scans.indexOf(this.state.scan); }

  monthsBetween() {
    const { study, state } = this;
    if (state.mode !== "between" || !state.other) return null;
    const [a, b] = [state.scan, state.other].map((scan) => study.scans.indexOf(scan));
    const [first, last] = [study.months[a], study.months[b]];
    return study.subjects[a] === study.subjects[b] && first !== null && last !== null && first !== last ? [first, last] : null;
  }

  remember() { history.replaceState(null, "", linkOf(this.state)); }

  want() {
    const ready = this.study.status.models === "ready", wish = { ...this.state };
    if (!ready || !brainOf(wish)) return undefined;
    return this.maker.want((quality) => ({ brain: brainOf(wish, quality), base: baseOf(wish, quality) }));
  }

  // One frame of a film: the whole brain where it is kept, else a preview.
  async frame(change) {
    Object.assign(this.state, change);
    this.chart();
    const of = (quality) => ({ brain: brainOf(this.state, quality), base: baseOf(this.state, quality) });
    const quality = !this.source.live || this.maker.has(of("full")) ? "full" : "preview", number = this.source.next();
    try {
      await this.maker.get(of(quality), number);
      if (number === this.source.number) await this.show(this.maker.found(of(quality)), quality, { isFilm: true });
    } catch { this.controls.stop(); }
  }

  async firstBrain() {
    if (this.kept || !this.study.has_volume[this.row()]) return;
    const scan = this.state.scan;
    try {
      const { levels } = await this.source.volume(scan);
      if (this.panes.levels.after || scan !== this.state.scan) return;
      this.panes.captions("", `${scan}, the scan itself`);
      await this.panes.show(this.grid, { after: levels, before: null });
      document.documentElement.dataset.first = String(Math.round(performance.now()));
      this.takeaway.update();
    } catch (error) { this.note("brain", error.message); }
  }

  async models() {
    for (;;) {
      const status = (this.study.status = await this.source.status().catch(() => this.study.status));
      byId("status").textContent = status.models === "loading" ? "The models are being loaded …" : "";
      if (status.models === "failed") this.note("models", `No brain can be made: ${status.problem}`);
      if (status.models !== "loading") break;
      await new Promise((done) => setTimeout(done, POLL_MS));
    }
    this.grid ||= this.study.status.grid;
    this.controls.draw();
    this.takeaway.update();
    return this.want();
  }

  async lay(kind) {
    if (!this.study.layouts.length) return;
    const slow = setTimeout(() => this.say("The map is being laid out …"), 300);
    try {
      const layout = await this.source.layout(kind);
      this.scatter.show(layout);
      byId("axes").textContent = `Across: ${layout.axes[0]}. Up: ${layout.axes[1]}.`;
      this.say("");
    } catch (error) { this.note("map", error.message); }
    clearTimeout(slow);
  }

  choose(i, isSecond) {
    const scan = this.study.scans[i];
    if (isSecond && this.source.live) this.set({ mode: "between", other: scan }, "all");
    else if (this.kept && !this.kept.people.includes(scan)) this.say("This person's brains are not in this file; the ringed ones are.");
    else {
      this.panes.levels = { before: null, after: null };
      this.set({ scan, other: this.state.other === scan ? null : this.state.other }, "all");
      this.firstBrain();
    }
  }

  find(text) {
    const { scans, subjects } = this.study, found = scans.includes(text) ? scans.indexOf(text) : subjects.indexOf(text);
    if (found >= 0) this.choose(found, false);
    else if (text) this.say(`${text} is not among the scans here.`);
  }

  fillAgainst() {
    const { state, study } = this, box = byId("against"), options = [];
    if (state.mode === "between") {
      options.push(["model", "A, as the model has it"], ["scan", "A, the scan"], ["other", "B, the scan"]);
      const months = this.monthsBetween();
      if (months) {
        for (const i of this.scatter.visits.get(study.subjects[this.row()]) || []) {
          if (study.months[i] > Math.min(...months) && study.months[i] < Math.max(...months)) options.push([study.scans[i], `real visit, month ${study.months[i]}`]);
        }
      }
    } else if (state.mode !== "noise") {
      options.push(["model", "as the model has it"]);
      if (!this.kept || this.kept.real) options.push(["scan", "the scan itself"]);
    }
    box.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
    if (!options.some(([value]) => value === state.against)) state.against = options[0]?.[0] ?? "model";
    box.value = state.against;
    box.disabled = options.length < 2;
  }

  // What is compared with, where it is a real scan.
  async reference() {
    const { state } = this, scan = { model: null, scan: state.scan, other: state.other }[state.against] ?? (state.against === "model" ? null : state.against);
    this.real = null;
    if (scan && state.mode !== "noise") {
      const asked = state.against;
      try {
        const { levels } = await this.source.volume(scan);
        if (asked === this.state.against) this.real = { levels, title: `${scan}, the scan itself` };
      } catch (error) { this.note("brain", error.message); }
    }
    if (this.last) await this.show(this.last, this.lastQuality, { isFilm: true });
  }

  show(found, quality, { isFilm = false } = {}) {
    const { state } = this;
    [this.last, this.lastQuality] = [found, quality];
    this.note("brain", "");
    this.panes.captions(this.real ? this.real.title : this.baseTitle(), this.title());
    const before = this.real ? this.real.levels : found.base?.levels ?? null;
    const shown = this.panes.show(this.grid, { after: found.made.levels, before, base: found.base?.levels ?? null });
    const steps = this.study.status[`${quality}_steps`];
    byId("quality").textContent = this.kept ? "made beforehand" : quality === "preview" ? `preview, ${steps} sampler steps` : `${steps} sampler steps${found.made.seconds ? `, ${found.made.seconds.toFixed(1)} s` : ""}`;
    byId("quality").dataset.quality = quality;
    byId("quality").dataset.brain = JSON.stringify(found.brain);
    if (quality === "full" && !isFilm) this.afterFull(found, state.mode);
    this.takeaway.update();
    return shown;
  }

  async afterFull({ brain }, mode) {
    const number = this.source.number, isMoved = mode === "move" && brain.kind === "move" ? brain.scale !== 0 : mode === "between" && brain.alpha !== 0;
    if (["vary", "noise"].includes(mode)) this.controls.fillThumbs(this.maker, (seed) => ({ ...brain, seed, quality: "preview" }), this.grid);
    if (!isMoved) { drawBars(null, mode === "noise" || mode === "vary" ? "" : "Move the slider to see which regions change."); return; }
    try {
      const found = await this.source.regions(brain, number);
      if (number === this.source.number) drawBars(found, "");
    } catch (error) {
      if (number === this.source.number) drawBars(null, error.message);
    }
  }

  title() {
    const { state } = this;
    if (state.mode === "noise") return `seed ${state.seed}, nobody's brain`;
    if (state.mode === "vary") return `${state.scan}, other noise, seed ${state.seed}`;
    if (state.mode === "between") {
      const months = this.monthsBetween();
      return months ? `month ${plain(months[0] + state.alpha * (months[1] - months[0]), 1)}, between two visits` : `${plain(state.alpha)} of the way from A to B`;
    }
    if (!state.direction || state.scale === 0) return `${state.scan}, as the model has it`;
    return `${state.scan}, ${signed(state.scale)} ${this.direction().unit} towards ${state.direction}`;
  }

  baseTitle() {
    return this.state.mode === "between" ? `A, ${this.state.scan}, as the model has it` : `${this.state.scan}, as the model has it`;
  }

  chart() {
    const { state } = this, isMove = state.mode === "move", direction = isMove ? this.direction() : null, row = this.row();
    const own = direction && row >= 0 ? direction.positions[row] : null, place = own === null ? null : own + state.scale;
    byId("charts").hidden = !["move", "between"].includes(state.mode);
    drawHistogram(direction, row, place);
    drawAnswer(direction, place);
  }

  working(quality) {
    byId("brain").setAttribute("aria-busy", String(Boolean(quality)));
    byId("status").textContent = quality === "preview" ? "drawing a preview …" : quality ? "drawing the brain …" : "";
  }

  hover(i, point) {
    const tip = byId("tip");
    tip.hidden = i === null || !point;
    if (tip.hidden) return;
    const { study } = this, label = this.scatter.label;
    const value = !label ? "" : label.numbers ? label.numbers[i] : label.groups[label.codes[i]];
    const month = this.scatter.visits.has(study.subjects[i]) && study.months[i] !== null ? `, month ${study.months[i]}` : "";
    tip.textContent = `${study.scans[i]}${month}` + (value === "" || value === null || value === undefined ? "" : `\n${label.name.replace(/_/g, " ")}: ${value}`);
    const box = byId("cloud").getBoundingClientRect();
    tip.style.left = `${Math.min(point[0] + 14, box.width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.max(4, point[1] - tip.offsetHeight - 10)}px`;
  }

  tellGroup(rows) {
    const { study } = this, label = this.scatter.label, people = new Set(rows.map((i) => study.subjects[i])).size;
    if (!rows.length) { byId("group").textContent = "No points chosen."; return; }
    let words = `${plural(rows.length, "scan")} of ${plural(people, "person")}`;
    if (label?.numbers) {
      const values = rows.map((i) => label.numbers[i]).filter((v) => v !== null).sort((a, b) => a - b);
      if (values.length) words += `; median ${label.name.replace(/_/g, " ")} ${plain(values[Math.floor(values.length / 2)], 1)}`;
    } else if (label) {
      const counts = label.groups.map((g, code) => [g, rows.filter((i) => label.codes[i] === code).length]).filter(([, n]) => n);
      words += `; ${counts.map(([g, n]) => `${n} ${g}`).join(", ")}`;
    }
    byId("group").textContent = `${words}. Click beside the points to let them go.`;
  }

  lost(isLost) {
    if (isLost) this.note("lost", "The server does not answer. Is `pipeline explore` still running? Start it again, and open the address that it prints.");
    else if (this.notes?.get("lost")) this.note("lost", "");
  }

  say(text) { byId("status").textContent = text; }

  note(key, text) {
    if (text) this.notes.set(key, text);
    else if (!this.notes.delete(key)) return;
    const box = byId("notes");
    box.hidden = !this.notes.size;
    box.replaceChildren(...[...new Set(this.notes.values())].map((words) => element("p", {}, words)));
  }
}

document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
const page = new Page();
window.explorePage = page;
page.open();
