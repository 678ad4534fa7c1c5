// The page: what is chosen, what is shown, and who is told when it changes.

import { byId, copyText, element, isDark, plural } from "./base.js";
import { drawAnswer, drawBars, drawHistogram } from "./charts.js";
import { Controls } from "./controls.js";
import { keptDocument, keptNiivue, KeptSource, oldBrowser } from "./kept.js";
import { Maker } from "./maker.js";
import { Panes } from "./panes.js";
import { drawLegend, Scatter } from "./scatter.js";
import { LiveSource, LOST } from "./source.js";
import { baseOf, brainOf, isSameSweep, linkOf, readLink } from "./state.js";
import { Takeaway } from "./takeaway.js";
import { baseTitleOf, findScan, groupWords, monthsBetween, pointWords, titleOf } from "./words.js";

const LAYOUTS = { pca: "PCA", tsne: "t-SNE", umap: "UMAP" };
const POLL_MS = 400;
const LINK_MS = 250;

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
    this.readLink();
    this.grid = this.study.grid;
    this.begin();
    if (document) await keptNiivue();
    this.panes = new Panes({
      flat: !globalThis.niivue,
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
      onGroup: (rows) => { byId("group").textContent = groupWords(this.study, this.scatter.label, rows); },
    });
    this.listen();
    this.scatter.rings = document ? document.people.map((scan) => this.study.scans.indexOf(scan)) : [];
    this.set({}, "all");
    await Promise.all([this.lay(this.state.layout), this.firstBrain(), this.models()]);
  }

  // The state that the link holds; what it leaves out is the study's first.
  readLink() {
    const { study, kept } = this;
    this.state = readLink(location.hash, study);
    if (kept && !kept.people.includes(this.state.scan)) this.state.scan = kept.people[0];
    if (kept) Object.assign(this.state, { mode: "move", scale: this.source.nearest(this.state) });
    this.state.scan ||= study.scans[Math.max(0, study.has_volume.indexOf(true))];
    this.state.direction ||= study.directions[0]?.name ?? null;
    this.state.colour ||= study.labels[0]?.name ?? null;
  }

  begin() {
    const { study } = this, people = new Set(study.subjects).size;
    document.title = byId("title").textContent = study.title;
    byId("phantom").hidden = !study.phantom;
    byId("count").textContent = `${plural(people, "person")}, ${plural(study.scans.length, "scan")}`;
    byId("layout").append(...study.layouts.map((kind) => element("option", { value: kind }, LAYOUTS[kind])));
    byId("colour").append(...study.labels.map((l) => element("option", { value: l.name }, l.name.replace(/_/g, " "))));
    byId("ids").append(...study.scans.map((scan) => element("option", { value: scan })));
    byId("copy-link").hidden = Boolean(this.kept);
    byId("colour-label").hidden = !study.labels.length;
    if (this.kept) byId("group").textContent = "Click a ringed point to see its brain. Drag around points to count them.";
    if (!study.layouts.length) {
      for (const name of ["cloud", "axes", "legend", "layout-label", "colour-label"]) byId(name).hidden = true;
      byId("group").textContent = "No map without y_sem. Find a scan or a person by name.";
    }
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
      this.writeLink();
      const isCopied = await copyText(location.href);
      this.say(isCopied ? "Copied: it holds what you see, and works on this computer while the page is served." : "This browser lets no page copy; take the address from its own line.");
    });
    byId("theme").addEventListener("click", () => this.theme(isDark() ? "light" : "dark"));
    const wished = matchMedia("(prefers-color-scheme: dark)");
    wished.addEventListener("change", () => this.theme(wished.matches ? "dark" : "light"));
    addEventListener("hashchange", () => {
      if (location.hash === linkOf(this.state)) return;
      this.readLink();
      this.set({}, "all");
      this.lay(this.state.layout);
    });
    const tabs = [...document.querySelectorAll("#modes button")];
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => this.set({ mode: tab.dataset.mode }, "all"));
      tab.addEventListener("keydown", (e) => {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[e.key];
        if (to === undefined) return;
        e.preventDefault();
        const next = tabs[(to + tabs.length) % tabs.length];
        next.focus();
        next.click();
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
        if (isOn) byId("controls").setAttribute("aria-labelledby", tab.id);
      }
      this.fillAgainst();
    }
    if (all || what === "controls") {
      this.controls.draw();
      drawBars(null, "");  // those of another person or direction
    }
    if (all || what === "map" || what === "controls") {
      this.scatter.chosen = study.scans.indexOf(state.scan);
      this.scatter.second = state.mode === "between" && state.other ? study.scans.indexOf(state.other) : null;
      const label = study.labels.find((l) => l.name === state.colour) || null;
      this.scatter.colourBy(label);
      drawLegend(this.scatter, label);
    }
    byId("threshold-out").textContent = `${((100 * state.threshold) / 255).toFixed(1)} %`;
    // Nobody's brain has none beside it.
    const isAlone = state.mode === "noise";
    byId("view").disabled = byId("difference").disabled = isAlone;
    byId("view").value = isAlone ? "one" : state.view;
    byId("against-label").hidden = isAlone || state.view === "one";  // a difference is from the model's own brain
    byId("layout").value = state.layout;
    byId("colour").value = state.colour ?? "";
    byId("difference").checked = state.difference;
    byId("threshold").value = state.threshold;
    if (all || what === "view") { this.panes.compare(isAlone ? "one" : state.view); this.reference(); }
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

  monthsBetween() { return monthsBetween(this.study, this.state); }

  // Not at every step of a slider: browsers refuse to write many links in a short time.
  remember() {
    clearTimeout(this.linkTimer);
    this.linkTimer = setTimeout(() => this.writeLink(), LINK_MS);
  }

  writeLink() {
    clearTimeout(this.linkTimer);
    try { history.replaceState(null, "", linkOf(this.state)); } catch { /* the next change writes it */ }
  }

  want() {
    const ready = this.study.status.models === "ready", wish = { ...this.state };
    const isPossible = this.source.live || wish.mode === "move";  // a file has no models
    if (!ready || !isPossible || !brainOf(wish)) return undefined;
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
      this.panes.clear();
      this.last = null;
      byId("quality").textContent = "";
      this.note("brain", "");
      this.set({ scan, other: this.state.other === scan ? null : this.state.other }, "all");
      this.firstBrain();
    }
    this.hear(`${isSecond ? "Second brain: " : ""}${pointWords(this.study, this.scatter.visits, this.scatter.label, i)}`);
  }

  find(text) {
    if (!text) return;
    const found = findScan(this.study, text);
    if (found.words) this.say(found.words);
    else { this.say(""); this.choose(found.row, false); }
  }

  fillAgainst() {
    const { state, study } = this, box = byId("against"), options = [];
    if (state.mode === "between") {
      options.push(["model", "A, as modelled"], ["scan", "A, the scan"], ["other", "B, the scan"]);
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
      const asked = state.against, person = state.scan;
      try {
        const { levels } = await this.source.volume(scan);
        if (asked === this.state.against && person === this.state.scan) this.real = { levels, title: `${scan}, the scan itself` };
      } catch (error) { this.note("brain", error.message); }
    }
    if (this.last) await this.show(this.last, this.lastQuality, { isFilm: true });
  }

  show(found, quality, { isFilm = false } = {}) {
    // What was asked for before another person or direction was chosen comes too late.
    if (!isSameSweep(found.brain, brainOf(this.state))) return undefined;
    const state = { ...this.state, ...found.brain };
    [this.last, this.lastQuality] = [found, quality];
    this.note("brain", "");
    const title = titleOf(state, this.study, this.direction());
    this.panes.captions(this.real ? this.real.title : baseTitleOf(state), title);
    const before = this.real ? this.real.levels : found.base?.levels ?? null;
    const shown = this.panes.show(this.grid, { after: found.made.levels, before, base: found.base?.levels ?? null });
    const steps = this.study.status[`${quality}_steps`];
    byId("quality").textContent = this.kept ? "made beforehand" : quality === "preview" ? `preview, ${steps} sampler steps` : `${steps} sampler steps${found.made.seconds ? `, ${found.made.seconds.toFixed(1)} s` : ""}`;
    byId("quality").dataset.quality = quality;
    byId("quality").dataset.brain = JSON.stringify(found.brain);
    if (quality === "full" && !isFilm) {
      this.hear(`${title}. ${state.mode === "move" ? byId("answer").textContent : ""}`);
      this.afterFull(found, state.mode);
    }
    this.takeaway.update();
    return shown;
  }

  async afterFull({ brain }, mode) {
    const number = this.source.number, isMoved = mode === "move" && brain.kind === "move" ? brain.scale !== 0 : mode === "between" && brain.alpha !== 0;
    if (["vary", "noise"].includes(mode)) this.controls.fillThumbs(this.maker, (seed) => ({ ...brain, seed, quality: "preview" }), this.grid);
    if (!isMoved) { drawBars(null, brain.kind === "move" || brain.kind === "between" ? "Move the slider to see which regions change." : ""); return; }
    if (byId("bars").hasAttribute("hidden")) drawBars(null, "Comparing regions …");
    try {
      const found = await this.source.regions(brain, number);
      if (number === this.source.number) drawBars(found, "");
    } catch (error) {
      if (number === this.source.number) drawBars(null, error.message);
    }
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
    byId("work").textContent = quality === "preview" ? "drawing a preview …" : quality ? "drawing the brain …" : "";
  }

  hover(i, point) {
    const tip = byId("tip");
    tip.hidden = i === null || !point;
    if (tip.hidden) return;
    tip.textContent = pointWords(this.study, this.scatter.visits, this.scatter.label, i);
    const box = byId("cloud").getBoundingClientRect();
    tip.style.left = `${Math.min(point[0] + 14, box.width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.max(4, point[1] - tip.offsetHeight - 10)}px`;
  }

  lost(isLost) {
    if (isLost) this.note("lost", LOST);
    else if (this.notes?.get("lost")) this.note("lost", "");
  }

  say(text) { byId("status").textContent = text; }

  // For a screen reader alone: what is to be seen otherwise.
  hear(text) { byId("heard").textContent = text; }

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
