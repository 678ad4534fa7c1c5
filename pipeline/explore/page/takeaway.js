// What is taken away: NIfTI, PNG, a film, the command.

import { byId, copyText, plural, saveFile, signed } from "./base.js";
import { brainOf } from "./state.js";
import { titleOf } from "./words.js";

const FRAMES = 9;
const FILMS = ["gif", "mp4"];

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
        : !ready || !brain || (FILMS.includes(what) && !sweeps) || (what === "native" && brain.kind === "noise");
    }
    byId("command").hidden = true;
  }

  async take(button) {
    const what = button.dataset.take, said = byId("taken");
    button.disabled = true;
    said.textContent = FILMS.includes(what) ? `drawing ${plural(FRAMES, "brain")} …` : "one moment …";
    const maker = { mni: "nifti", native: "nifti", gif: "film", mp4: "film" }[what] ?? what;
    try {
      said.textContent = await this[maker](what);
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

  async film(kind) {
    const { state, panes, grid, study } = this.page, name = state.mode === "move" ? "scale" : "alpha";
    const ends = state.mode === "move" ? [-3, 3] : [0, 1], brain = brainOf(state), file = `${this.stem()}.${kind}`;
    const places = [...Array(FRAMES).keys()].map((i) => ends[0] + (i * (ends[1] - ends[0])) / (FRAMES - 1));
    const people = name === "alpha" ? `${state.scan} to ${state.other}: ` : "";
    const captions = places.map((p) => people + titleOf({ ...state, [name]: p }, study, this.page.direction()));
    const voxel = panes.voxel || grid.shape.map((n) => Math.floor(n / 2));
    const { blob } = await this.page.source.file("film", { brains: places.map((p) => ({ ...brain, [name]: p })), captions, voxel, kind });
    saveFile(file, blob);
    return `${file} is among your downloads.`;
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
