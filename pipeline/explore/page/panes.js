// The two brains: what is compared with, and what is looked at; one crosshair for both.

import { byId } from "./base.js";
import { difference, SliceView } from "./slices.js";
import { VolumeView } from "./volume_view.js";

export const NO_WEBGL = "This browser has no WebGL2, so the brain is shown as slices, without the 3D rendering.";

export class Panes {
  constructor({ flat, onVoxel, onNote }) {
    Object.assign(this, { flat, onVoxel, onNote });
    this.box = byId("panes");
    this.views = {};
    this.levels = { before: null, after: null };
    this.grid = null;
    this.isDifferent = false;
    this.threshold = 13;
    this.work = Promise.resolve();
    byId("swipe").addEventListener("input", (e) => this.box.style.setProperty("--meet", `${e.target.value}%`));
  }

  async view(name) {
    if (this.views[name]) return this.views[name];
    const figure = byId(name);
    let view = null;
    if (!this.flat) {
      try {
        view = await VolumeView.open(figure.querySelector("canvas"));
      } catch {
        this.flat = true;
        this.onNote(NO_WEBGL);
      }
    }
    if (!view) {
      // A canvas that was asked for WebGL gives no 2D context.
      const fresh = figure.querySelector("canvas").cloneNode();
      figure.querySelector("canvas").replaceWith(fresh);
      view = new SliceView(fresh);
    }
    view.onVoxel = (voxel) => {
      for (const other of Object.values(this.views)) if (other !== view) other.goTo(voxel);
      this.voxel = voxel;
      this.onVoxel(voxel);
    };
    if (this.voxel) view.goTo(this.voxel);
    this.views[name] = view;
    return view;
  }

  // Drawing goes one after the other; what was overtaken meanwhile is left out.
  show(grid, { before = this.levels.before, after = this.levels.after, base = before }) {
    this.grid = grid;
    this.levels = { before, after };
    this.base = base;
    this.turn = (this.turn || 0) + 1;
    const turn = this.turn;
    this.work = this.work.then(() => turn === this.turn && this.paint()).catch((error) => this.onNote(`${error.message || error}`));
    return this.work;
  }

  // Until the next brain is drawn: nobody's picture under another one's name.
  clear() {
    this.turn = (this.turn || 0) + 1;
    this.levels = { before: null, after: null };
    this.box.classList.remove("drawn");
    this.captions("", "");
  }

  again() { return this.grid && this.levels.after ? this.show(this.grid, { base: this.base }) : Promise.resolve(); }

  async paint() {
    const { before, after } = this.levels, grid = this.grid;
    if (after) {
      const view = await this.view("after");
      await view.show(after, grid);
      const known = this.isDifferent && this.base && this.base.length === after.length;
      await view.overlay(known ? difference(after, this.base) : null, this.threshold);
    }
    if (before && this.box.dataset.view !== "one") await (await this.view("before")).show(before, grid);
    if (after !== this.levels.after) return;
    this.box.classList.add("drawn");
    document.documentElement.dataset.first ||= String(Math.round(performance.now()));
  }

  compare(view) {
    this.box.dataset.view = view;
    byId("swipe").hidden = view !== "swipe";
    byId("swipe").dispatchEvent(new Event("input"));
    return this.again();
  }

  goTo(voxel) {
    this.voxel = voxel;
    for (const view of Object.values(this.views)) view.goTo(voxel);
  }

  captions(before, after) {
    for (const [name, words] of [["before", before], ["after", after]]) {
      byId(name).querySelector("figcaption").textContent = words;
      byId(name).querySelector("canvas").setAttribute("aria-label", words ? `${words}. Arrow and page keys move the crosshair.` : "No brain yet");
    }
  }

  async png() {
    return (await this.view("after")).png();
  }
}
