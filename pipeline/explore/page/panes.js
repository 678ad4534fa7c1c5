// The two brains: what is compared with, and what is looked at; one crosshair for both.

import { byId, element } from "./base.js";
import { difference, SliceView } from "./slices.js";
import { VolumeView } from "./volume_view.js";

const FOOT = 22;
export const NO_WEBGL = "This browser has no WebGL2, so the brain is shown as slices, without the 3D rendering.";
export const LOST_WEBGL = "The graphics of this browser gave up (its memory may be short), so the brain is shown as slices. Loading the page again tries anew.";

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
        view.canvas.addEventListener("webglcontextlost", () => this.flatten());
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

  // A driver can take a page's graphics away at any time; slices need none.
  flatten() {
    if (this.flat) return;
    this.flat = true;
    this.views = {};
    this.onNote(LOST_WEBGL);
    this.again();
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

  // What is to be seen, with its words: a picture goes further than the page that explains it.
  async png() {
    const scale = devicePixelRatio || 1, { left, top, width, height } = this.box.getBoundingClientRect();
    const picture = element("canvas", { width: Math.round(width * scale), height: Math.round((height + FOOT) * scale) });
    const ctx = picture.getContext("2d"), meet = (width * byId("swipe").value) / 100, isSwipe = this.box.dataset.view === "swipe";
    ctx.scale(scale, scale);
    ctx.fillRect(0, 0, width, height + FOOT);
    for (const name of ["before", "after"]) {
      const view = this.views[name], box = view?.canvas.getBoundingClientRect() ?? { width: 0 }, x = box.left - left, y = box.top - top;
      if (!box.width || !this.levels[name]) continue;
      ctx.save();
      ctx.beginPath();
      ctx.rect(isSwipe && name === "after" ? meet : x, 0, width, height);
      ctx.clip();
      view.redraw();
      ctx.drawImage(view.canvas, x, y, box.width, box.height);
      const words = byId(name).querySelector("figcaption"), isRight = isSwipe && name === "after";
      Object.assign(ctx, { fillStyle: "#d7dde5", font: "12px system-ui, sans-serif", textAlign: isRight ? "right" : "left" });
      ctx.fillText(words.textContent, isRight ? width - 10 : x + 10, y - 7);
      ctx.restore();
    }
    Object.assign(ctx, { fillStyle: "#9aa7b6", font: "12px system-ui, sans-serif" });
    ctx.fillText(document.querySelector("footer").textContent, 10, height + FOOT - 7);
    return new Promise((done) => picture.toBlob(done, "image/png"));
  }
}
