// Three planes and a rendering by NiiVue (WebGL2).

import { clamp } from "./base.js";
import { changeColour, keyedVoxel } from "./slices.js";

const FLOAT_HEADER = 352;
const TYPES = { uint8: [2, 8], int16: [4, 16] };

// A NIfTI-1 file in memory, so that NiiVue takes the voxels as it takes any file's.
export function niftiOf(values, grid, type) {
  const [code, bits] = TYPES[type], buffer = new ArrayBuffer(FLOAT_HEADER + (values.length * bits) / 8);
  const view = new DataView(buffer);
  view.setInt32(0, 348, true);
  [3, ...grid.shape, 1, 1, 1, 1].forEach((v, i) => view.setInt16(40 + 2 * i, v, true));
  view.setInt16(70, code, true);
  view.setInt16(72, bits, true);
  const zooms = [0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => grid.affine[row][axis])));
  [1, ...zooms, 1, 1, 1, 1].forEach((v, i) => view.setFloat32(76 + 4 * i, v, true));
  view.setFloat32(108, FLOAT_HEADER, true);
  view.setFloat32(112, 1, true);
  view.setInt8(123, 2);
  view.setInt16(254, 4, true);
  grid.affine.slice(0, 3).forEach((row, i) => row.forEach((v, j) => view.setFloat32(280 + 16 * i + 4 * j, v, true)));
  new Uint8Array(buffer, 344, 4).set([110, 43, 49, 0]);
  new Uint8Array(buffer, FLOAT_HEADER).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return buffer;
}

// The colours of the slices' overlay, as NiiVue takes them.
function ramp(sign) {
  const weak = changeColour(sign * 0.001), ends = [weak, weak, changeColour(sign * 60)];
  const [R, G, B] = [0, 1, 2].map((c) => ends.map((colour) => Math.round(colour[c])));
  return { R, G, B, A: [0, 210, 255], I: [0, 1, 255] };  // the lowest index is all below the threshold
}

export class VolumeView {
  // Rejects where there is no WebGL2.
  static async open(canvas) {
    const { Niivue, SHOW_RENDER, MULTIPLANAR_TYPE } = globalThis.niivue;
    const nv = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.45, 0.68, 0.92, 0.75],
      crosshairWidth: 0.6,
      show3Dcrosshair: true,
      isColorbar: false,
      isOrientationTextVisible: true,
      fontColor: [0.6, 0.65, 0.71, 1],
      multiplanarShowRender: SHOW_RENDER.ALWAYS,
      multiplanarLayout: MULTIPLANAR_TYPE.AUTO,
      dragAndDropEnabled: false,
      loadingText: "",
      logLevel: "silent",
    });
    await nv.attachToCanvas(canvas);
    nv.setSliceType(nv.sliceTypeMultiplanar);
    for (const [name, sign] of [["became-darker", -1], ["became-brighter", 1]]) nv.addColormap(name, ramp(sign));
    return new VolumeView(canvas, nv);
  }

  constructor(canvas, nv) {
    Object.assign(this, { canvas, nv, onVoxel: () => {}, grid: null, voxel: null, quiet: false });
    canvas.tabIndex = 0;
    canvas.addEventListener("keydown", (e) => {
      const voxel = this.grid && keyedVoxel(e, this.voxel);
      if (!voxel) return;
      this.goTo(voxel);
      this.onVoxel(this.voxel);
    });
    new ResizeObserver(() => this.fit()).observe(canvas);
    nv.onLocationChange = (place) => {
      if (!this.grid || this.quiet) return;
      const voxel = Array.from(place.vox).slice(0, 3).map(Math.round);
      if (this.voxel?.every((v, i) => v === voxel[i])) return;
      this.voxel = voxel;
      this.onVoxel(voxel);
    };
  }

  // Four pictures in a row, or two by two where the pane is not so wide.
  fit() {
    const { GRID, ROW } = globalThis.niivue.MULTIPLANAR_TYPE, { clientWidth: w, clientHeight: h } = this.canvas;
    const layout = w / Math.max(1, h) < 2.1 ? GRID : ROW;
    if (layout !== this.nv.opts.multiplanarLayout) this.nv.setMultiplanarLayout(layout);
  }

  async show(levels, grid) {
    if (this.grid !== grid) {
      this.nv.volumes.slice().forEach((volume) => this.nv.removeVolume(volume));
      this.over = null;
      this.grid = grid;
      const volume = await globalThis.niivue.NVImage.new(niftiOf(levels, grid, "uint8"), "brain.nii");
      Object.assign(volume, { cal_min: 0, cal_max: 235, colormap: "gray" });
      this.nv.addVolume(volume);
      this.voxel ? this.goTo(this.voxel) : this.goTo(grid.shape.map((n) => Math.floor(n / 2)));
      return;
    }
    this.nv.volumes[0].img.set(levels);
    this.nv.updateGLVolume();
  }

  async overlay(change, threshold) {
    if (!change) {
      if (this.over) this.nv.removeVolume(this.over);
      this.over = null;
      return;
    }
    if (!this.over) {
      this.over = await globalThis.niivue.NVImage.new(niftiOf(change, this.grid, "int16"), "difference.nii");
      Object.assign(this.over, { colormap: "became-brighter", colormapNegative: "became-darker", opacity: 0.9 });
      this.limits(threshold);
      this.nv.addVolume(this.over);
      return;
    }
    this.over.img.set(change);
    this.limits(threshold);
    this.nv.updateGLVolume();
  }

  limits(threshold) {
    Object.assign(this.over, { cal_min: threshold, cal_max: 60, cal_minNeg: -60, cal_maxNeg: -threshold });
  }

  goTo(voxel) {
    if (!this.grid) { this.voxel = voxel; return; }
    this.voxel = voxel.map((v, axis) => clamp(v, 0, this.grid.shape[axis] - 1));
    this.quiet = true;
    this.nv.scene.crosshairPos = this.voxel.map((v, axis) => (v + 0.5) / this.grid.shape[axis]);
    this.nv.drawScene();
    this.quiet = false;
  }

  // A WebGL canvas is empty once its frame is shown: whoever reads it draws it first.
  redraw() { this.nv.drawScene(); }
}
