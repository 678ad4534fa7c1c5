// Three planes of a volume on a plain canvas: what is shown where there is no WebGL2, and in files.

import { clamp } from "./base.js";

const GAP = 6;
// Axis that a plane leaves out, and those that go right and up: axial, coronal, sagittal.
const PLANES = [[2, 0, 1], [1, 0, 2], [0, 1, 2]];

export class SliceView {
  constructor(canvas) {
    this.canvas = canvas;
    this.onVoxel = () => {};
    this.levels = this.change = null;
    canvas.tabIndex = 0;
    canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); this.point(e); });
    canvas.addEventListener("pointermove", (e) => e.buttons && this.point(e));
    canvas.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
    canvas.addEventListener("keydown", (e) => this.key(e));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  async show(levels, grid) {
    this.levels = levels;
    this.grid = grid;
    this.voxel ||= grid.shape.map((n) => Math.floor(n / 2));
    this.draw();
  }

  overlay(change, threshold) {
    this.change = change;
    this.threshold = threshold;
    this.draw();
  }

  goTo(voxel) {
    this.voxel = voxel.map((v, axis) => clamp(Math.round(v), 0, (this.grid?.shape[axis] ?? 1e9) - 1));
    this.draw();
  }

  layout() {
    const { clientWidth: w, clientHeight: h } = this.canvas, shape = this.grid.shape;
    const mm = shape.map((n, axis) => n * Math.hypot(...[0, 1, 2].map((row) => this.grid.affine[row][axis])));
    const across = [mm[0] + mm[0] + mm[1], Math.max(mm[1], mm[2])];
    const wide = Math.min((w - 2 * GAP) / across[0], h / across[1]);
    const tall = Math.min((w - GAP) / (mm[0] + mm[1]), (h - GAP) / (mm[1] + mm[2]));
    const boxes = [], row = wide >= tall, zoom = row ? wide : tall;
    const size = PLANES.map(([, right, up]) => [mm[right] * zoom, mm[up] * zoom]);
    if (row) {
      let x = (w - across[0] * zoom - 2 * GAP) / 2;
      for (const [bw, bh] of size) { boxes.push([x, (h - bh) / 2, bw, bh]); x += bw + GAP; }
    } else {
      const x = (w - size[0][0] - GAP - size[2][0]) / 2, y = (h - size[1][1] - GAP - size[0][1]) / 2;
      boxes.push([x, y + size[1][1] + GAP, ...size[0]], [x, y, ...size[1]], [x + size[1][0] + GAP, y, ...size[2]]);
    }
    return boxes;
  }

  draw() {
    const canvas = this.canvas, scale = devicePixelRatio || 1, { clientWidth: w, clientHeight: h } = canvas;
    if (!this.levels || !w || !h) return;
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(h * scale);
    const ctx = canvas.getContext("2d");
    ctx.setTransform(scale, 0, 0, scale, 0, 0);
    ctx.fillStyle = "#000";
    ctx.fillRect(0, 0, w, h);
    ctx.imageSmoothingQuality = "high";
    this.boxes = this.layout();
    this.boxes.forEach(([x, y, bw, bh], plane) => {
      ctx.drawImage(this.picture(plane), x, y, bw, bh);
      const [, right, up] = PLANES[plane], shape = this.grid.shape;
      const cx = x + ((this.voxel[right] + 0.5) / shape[right]) * bw, cy = y + bh - ((this.voxel[up] + 0.5) / shape[up]) * bh;
      ctx.strokeStyle = "#74aeeab0";
      ctx.lineWidth = 1;
      ctx.beginPath();
      for (const [x0, y0, x1, y1] of [[x, cy, cx - 5, cy], [cx + 5, cy, x + bw, cy], [cx, y, cx, cy - 5], [cx, cy + 5, cx, y + bh]]) { ctx.moveTo(x0, y0); ctx.lineTo(x1, y1); }
      ctx.stroke();
      ctx.fillStyle = "#9aa7b6";
      ctx.font = "11px system-ui, sans-serif";
      ctx.fillText(plane === 2 ? "P" : "L", x + 3, y + bh / 2);
    });
  }

  picture(plane) {
    const [out, right, up] = PLANES[plane], shape = this.grid.shape, step = [1, shape[0], shape[0] * shape[1]];
    const made = document.createElement("canvas");
    [made.width, made.height] = [shape[right], shape[up]];
    const ctx = made.getContext("2d"), image = ctx.createImageData(made.width, made.height);
    let at = 0;
    for (let j = shape[up] - 1; j >= 0; j--) {
      let index = this.voxel[out] * step[out] + j * step[up];
      for (let i = 0; i < shape[right]; i++, index += step[right], at += 4) {
        const grey = this.levels[index], change = this.change ? this.change[index] : 0;
        const colour = Math.abs(change) >= this.threshold && change ? changeColour(change) : [grey, grey, grey];
        image.data.set(colour, at);
        image.data[at + 3] = 255;
      }
    }
    ctx.putImageData(image, 0, 0);
    return made;
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    const plane = (this.boxes || []).findIndex(([x, y, w, h]) => px >= x && px <= x + w && py >= y && py <= y + h);
    if (plane < 0) return;
    const [x, y, w, h] = this.boxes[plane], [, right, up] = PLANES[plane], voxel = [...this.voxel];
    voxel[right] = Math.floor(((px - x) / w) * this.grid.shape[right]);
    voxel[up] = Math.floor((1 - (py - y) / h) * this.grid.shape[up]);
    this.moved(voxel);
  }

  wheel(event) {
    event.preventDefault();
    const voxel = [...this.voxel];
    voxel[2] += event.deltaY > 0 ? -1 : 1;
    this.moved(voxel);
  }

  key(event) {
    const voxel = this.levels && keyedVoxel(event, this.voxel);
    if (voxel) this.moved(voxel);
  }

  moved(voxel) {
    this.goTo(voxel);
    this.onVoxel(this.voxel);
  }

  redraw() { this.draw(); }
}

// Where a key moves the crosshair to; null where it moves nothing.
export function keyedVoxel(event, from) {
  const turn = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 1], ArrowDown: [1, -1], PageUp: [2, 1], PageDown: [2, -1] }[event.key];
  if (!turn || event.ctrlKey || event.altKey || event.metaKey) return null;
  event.preventDefault();
  event.stopImmediatePropagation();
  const voxel = [...from];
  voxel[turn[0]] += turn[1];
  return voxel;
}

// Blue where it became darker, orange where brighter; the stronger, the lighter.
export function changeColour(change) {
  const share = clamp(Math.abs(change) / 60, 0, 1);
  return change < 0
    ? [11 + 116 * share, 63 + 161 * share, 156 + 99 * share]
    : [163 + 92 * share, 58 + 153 * share, 77 * share];
}

export function difference(levels, before) {
  const change = new Int16Array(levels.length);
  for (let i = 0; i < levels.length; i++) change[i] = levels[i] - before[i];
  return change;
}
