// What is taken away: NIfTI, PNG, GIF, the command.

import { byId, copyText, plural, saveFile, signed } from "./base.js";
import { brainOf } from "./state.js";

const FRAMES = 9;

export class Takeaway {
  constructor(page) {
    this.page = page;
    for (const button of document.querySelectorAll("[data-take]")) button.addEventListener("click", () => this.take(button));
  }

  update() {
    const { state, source, study } = this.page, brain = brainOf(state), ready = study.status.models === "ready";
    for (const button of document.querySelectorAll("[data-take]")) {
      const what = button.dataset.take;
      button.hidden = !source.live && what !== "png";
      const sweeps = ["move", "between"].includes(state.mode) && brain && brain.kind !== "scan";
      button.disabled = what === "png" ? !this.page.panes.levels.after
        : !ready || !brain || (what === "gif" && !sweeps) || (what === "native" && brain.kind === "noise");
    }
    byId("command").hidden = true;
  }

  async take(button) {
    const what = button.dataset.take, said = byId("taken");
    button.disabled = true;
    said.textContent = what === "gif" ? `drawing ${plural(FRAMES, "brain")} …` : "one moment …";
    try {
      said.textContent = await this[what === "native" ? "nifti" : what === "mni" ? "nifti" : what](what);
    } catch (error) {
      said.textContent = error.message;
    }
    button.disabled = false;
  }

  async nifti(space) {
    const { name, blob } = await this.page.source.file("nifti", { brain: brainOf(this.page.state), space });
    saveFile(name, blob);
    this.last = { name, size: blob.size, blob };
    return `${name} is among your downloads.`;
  }

  async png() {
    const blob = await this.page.panes.png(), name = `${this.stem()}.png`;
    saveFile(name, blob);
    return `${name} is among your downloads.`;
  }

  async gif() {
    const { state, panes, grid } = this.page, name = state.mode === "move" ? "scale" : "alpha";
    const ends = state.mode === "move" ? [-3, 3] : [0, 1], brain = brainOf(state);
    const places = [...Array(FRAMES).keys()].map((i) => ends[0] + (i * (ends[1] - ends[0])) / (FRAMES - 1));
    const captions = places.map((p) => (name === "scale" ? `${state.scan}   ${signed(p, 2)} ${this.page.direction().unit} towards ${state.direction}` : `${state.scan} to ${state.other}   ${p.toFixed(2)}`));
    const voxel = panes.voxel || grid.shape.map((n) => Math.floor(n / 2));
    const { blob } = await this.page.source.file("film", { brains: places.map((p) => ({ ...brain, [name]: p })), captions, voxel });
    saveFile(`${this.stem()}.gif`, blob);
    return `${this.stem()}.gif is among your downloads.`;
  }

  async command() {
    const box = byId("command");
    box.textContent = await this.page.source.command(brainOf(this.page.state), "mni");
    box.hidden = false;
    const isCopied = await copyText(box.textContent);
    return `${isCopied ? "Copied. " : ""}Run this in the folder of the study: it writes the same brain.`;
  }

  stem() {
    const { state } = this.page, place = state.mode === "move" ? signed(state.scale).replace("\u2212", "-") : state.mode === "between" ? state.alpha.toFixed(2) : `seed-${state.seed}`;
    return `${state.mode === "noise" ? "new" : state.scan}_${state.mode}_${place}`.replace(/[^\w.+-]/g, "-");
  }
}
