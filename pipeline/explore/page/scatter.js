// People as points on a canvas: colours, lasso, visits joined by a line, keyboard.

import { byId, cssColour, groupColour, isDark, rampColour } from "./base.js";

const NEAR = 14;
const MOST_EDGED = 2000;

// The ramp's dark end cannot be seen on a dark page, nor its light end on a light one.
const rampShare = (share) => (isDark() ? 0.4 + 0.6 * share : 0.86 * share);

export class Scatter {
  constructor(canvas, study, { onChoose, onHover, onGroup }) {
    Object.assign(this, { canvas, study, onChoose, onHover, onGroup });
    this.places = [];
    this.label = null;
    this.chosen = this.second = this.hovered = null;
    this.group = new Set();
    this.path = [];
    this.visits = visitsOf(study);
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (e) => this.down(e));
    canvas.addEventListener("pointermove", (e) => this.move(e));
    canvas.addEventListener("pointerup", (e) => this.up(e));
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("pointercancel", () => { this.path = []; this.draw(); });
    canvas.addEventListener("keydown", (e) => this.key(e));
  }

  show(layout) {
    this.places = layout.places;
    this.axes = layout.axes;
    const known = this.places.filter(Boolean);
    const range = (axis) => known.reduce(([low, high], p) => [Math.min(low, p[axis]), Math.max(high, p[axis])], [Infinity, -Infinity]);
    [this.x, this.y] = [range(0), range(1)];
    this.draw();
  }

  colourBy(label) {
    this.label = label;
    const numbers = (label?.numbers || []).filter((v) => v !== null).sort((a, b) => a - b);
    // The ends are those of the middle 96 %, so that one outlier does not take all colours.
    this.ends = numbers.length ? [numbers[Math.floor(numbers.length * 0.02)], numbers[Math.ceil(numbers.length * 0.98) - 1]] : null;
    this.draw();
  }

  styleOf(i) {
    if (!this.label) return { colour: this.plain, shape: 0 };
    if (this.label.numbers) {
      const value = this.label.numbers[i];
      if (value === null) return { colour: this.unknown, shape: 0 };
      const share = (value - this.ends[0]) / (this.ends[1] - this.ends[0] || 1);
      return { colour: rampColour(rampShare(share)), shape: 0 };
    }
    const code = this.label.codes[i];
    return code < 0 ? { colour: this.unknown, shape: 0 } : { colour: groupColour(code), shape: code };
  }

  toScreen([x, y]) {
    const pad = 22, { clientWidth: w, clientHeight: h } = this.canvas;
    const share = (value, [low, high]) => (high > low ? (value - low) / (high - low) : 0.5);
    return [pad + share(x, this.x) * (w - 2 * pad), h - pad - share(y, this.y) * (h - 2 * pad)];
  }

  draw() {
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => { this.asked = 0; this.paint(); });
  }

  paint() {
    const canvas = this.canvas, scale = devicePixelRatio || 1, { clientWidth: w, clientHeight: h } = canvas;
    if (!w || !this.places.length) return;
    if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(h * scale)) {
      canvas.width = Math.round(w * scale);
      canvas.height = Math.round(h * scale);
    }
    const ctx = canvas.getContext("2d");
    ctx.setTransform(scale, 0, 0, scale, 0, 0);
    ctx.clearRect(0, 0, w, h);
    this.screen = this.places.map((p) => p && this.toScreen(p));
    const size = this.places.length > 2000 ? 2.6 : this.places.length > 400 ? 3.6 : 5;
    const edge = cssColour("--muted");
    [this.plain, this.unknown] = [cssColour("--accent"), cssColour("--bar")];
    this.paintVisits(ctx);
    const dim = this.group.size > 0, styles = new Map();
    this.screen.forEach((p, i) => {
      if (!p) return;
      const { colour, shape } = this.styleOf(i), key = `${colour}|${shape}|${dim && !this.group.has(i)}`;
      if (!styles.has(key)) styles.set(key, { colour, shape, faint: dim && !this.group.has(i), points: [] });
      styles.get(key).points.push(p);
    });
    for (const { colour, shape, faint, points } of styles.values()) {
      ctx.globalAlpha = faint ? 0.18 : 0.88;
      ctx.fillStyle = colour;
      ctx.beginPath();
      for (const [x, y] of points) marker(ctx, shape, x, y, size);
      ctx.fill();
      if (this.places.length > MOST_EDGED) continue;
      // Light colours on a light page are seen by their edge.
      ctx.strokeStyle = edge;
      ctx.lineWidth = 0.7;
      ctx.stroke();
    }
    ctx.globalAlpha = 1;
    for (const i of this.rings || []) this.ring(ctx, i, size + 3, cssColour("--accent"), 1.6);
    this.ring(ctx, this.hovered, size + 3, cssColour("--ink"), 1.2);
    this.ring(ctx, this.second, size + 5, cssColour("--high"), 2.4, "B");
    this.ring(ctx, this.chosen, size + 5, cssColour("--ink"), 2.4, this.second === null ? "" : "A");
    if (this.path.length > 1) {
      ctx.beginPath();
      this.path.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
      ctx.closePath();
      ctx.strokeStyle = cssColour("--accent");
      ctx.setLineDash([5, 4]);
      ctx.stroke();
      ctx.setLineDash([]);
    }
  }

  paintVisits(ctx) {
    const many = this.places.length > 400;
    for (const visits of this.visits.values()) {
      const own = visits.includes(this.chosen);
      if (many && !own) continue;
      const points = visits.map((i) => this.screen[i]).filter(Boolean);
      if (points.length < 2) continue;
      ctx.beginPath();
      points.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
      ctx.strokeStyle = cssColour(own ? "--ink" : "--bar");
      ctx.lineWidth = own ? 1.8 : 1;
      ctx.stroke();
      const [[x0, y0], [x1, y1]] = points.slice(-2), turn = Math.atan2(y1 - y0, x1 - x0);
      if (Math.hypot(x1 - x0, y1 - y0) < 14) continue;
      const [mx, my] = [(x0 + x1) / 2, (y0 + y1) / 2];
      ctx.beginPath();
      for (const side of [2.6, -2.6]) { ctx.moveTo(mx, my); ctx.lineTo(mx + 6 * Math.cos(turn + side), my + 6 * Math.sin(turn + side)); }
      ctx.stroke();
    }
  }

  ring(ctx, i, radius, colour, width, letter = "") {
    const p = i === null || i === undefined ? null : this.screen[i];
    if (!p) return;
    ctx.beginPath();
    ctx.arc(p[0], p[1], radius, 0, 7);
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.stroke();
    if (!letter) return;
    ctx.fillStyle = colour;
    ctx.font = "600 13px system-ui, sans-serif";
    ctx.fillText(letter, p[0] + radius + 2, p[1] - radius + 4);
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  nearest([x, y]) {
    let best = null, least = NEAR;
    (this.screen || []).forEach((p, i) => {
      const far = p ? Math.hypot(p[0] - x, p[1] - y) : Infinity;
      if (far < least) [best, least] = [i, far];
    });
    return best;
  }

  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.path = [this.at(event)];
  }

  move(event) {
    const point = this.at(event);
    if (!this.path.length) return this.hover(this.nearest(point), point);
    const [x, y] = this.path[this.path.length - 1];
    if (Math.hypot(point[0] - x, point[1] - y) > 3) { this.path.push(point); this.draw(); }
  }

  up(event) {
    const path = this.path;
    this.path = [];
    if (path.length > 4) {
      this.gather(this.screen.flatMap((p, i) => (p && within(p, path) ? [i] : [])));
    } else {
      const found = this.nearest(this.at(event));
      if (found !== null) this.onChoose(found, event.shiftKey);
      else if (this.group.size) this.gather([]);
    }
    this.draw();
  }

  gather(rows) {
    this.group = new Set(rows);
    this.onGroup(rows);
    this.draw();
  }

  hover(i, point = null) {
    if (i !== this.hovered) { this.hovered = i; this.draw(); }
    this.onHover(i, point);
  }

  key(event) {
    const isShown = this.chosen !== null && this.chosen >= 0, last = this.study.scans.length - 1;
    const turn = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const next = { PageDown: Math.min(last, this.chosen + 1), PageUp: Math.max(0, this.chosen - 1), Home: 0, End: last }[event.key];
    if (event.ctrlKey || event.altKey || event.metaKey) return undefined;
    if (event.key === "Enter" && isShown) return this.onChoose(this.chosen, true);
    if (event.key === "Escape" && this.group.size) return this.gather([]);
    if (!turn && next === undefined && event.key !== " ") return undefined;
    event.preventDefault();
    if (event.key === " ") return isShown ? this.gather([...this.group].includes(this.chosen) ? [...this.group].filter((i) => i !== this.chosen) : [...this.group, this.chosen]) : undefined;
    if (next !== undefined) return this.onChoose(next, event.shiftKey);
    const from = this.screen?.[this.chosen];
    if (!from) return this.screen?.some(Boolean) ? this.onChoose(this.screen.findIndex(Boolean), event.shiftKey) : undefined;
    let best = null, least = Infinity;
    this.screen.forEach((p, i) => {
      if (!p || i === this.chosen) return;
      const along = (p[0] - from[0]) * turn[0] + (p[1] - from[1]) * turn[1];
      const aside = Math.abs((p[0] - from[0]) * turn[1]) + Math.abs((p[1] - from[1]) * turn[0]);
      if (along > 0.5 && along + 2 * aside < least) [best, least] = [i, along + 2 * aside];
    });
    if (best !== null) this.onChoose(best, event.shiftKey);
    return undefined;
  }
}

export function visitsOf(study) {
  const visits = new Map();
  study.subjects.forEach((subject, i) => visits.set(subject, [...(visits.get(subject) || []), i]));
  for (const [subject, rows] of visits) {
    if (rows.length < 2) visits.delete(subject);
    else rows.sort((a, b) => (study.months[a] ?? 0) - (study.months[b] ?? 0));
  }
  return visits;
}

// Groups differ in shape as well as in colour.
export function marker(ctx, shape, x, y, r) {
  const polygon = (corners, turn, size) => {
    for (let k = 0; k < corners; k++) {
      const a = turn + (2 * Math.PI * k) / corners;
      ctx[k ? "lineTo" : "moveTo"](x + size * Math.cos(a), y + size * Math.sin(a));
    }
    ctx.closePath();
  };
  if (shape % 5 === 1) polygon(3, -Math.PI / 2, 1.35 * r);
  else if (shape % 5 === 2) polygon(4, Math.PI / 4, 1.25 * r);
  else if (shape % 5 === 3) polygon(4, 0, 1.35 * r);
  else if (shape % 5 === 4) polygon(3, Math.PI / 2, 1.35 * r);
  else { ctx.moveTo(x + r, y); ctx.arc(x, y, r, 0, 7); }
}

function within([x, y], path) {
  let inside = false;
  path.forEach(([x1, y1], i) => {
    const [x0, y0] = path[(i || path.length) - 1];
    if (y0 > y !== y1 > y && x < ((x1 - x0) * (y - y0)) / (y1 - y0) + x0) inside = !inside;
  });
  return inside;
}

export function drawLegend(scatter, label) {
  const box = byId("legend");
  box.replaceChildren();
  if (!label) return;
  if (label.numbers) {
    const ramp = document.createElement("canvas");
    Object.assign(ramp, { width: 130, height: 10, className: "ramp" });
    const ctx = ramp.getContext("2d");
    for (let x = 0; x < 130; x++) {
      ctx.fillStyle = rampColour(rampShare(x / 130));
      ctx.fillRect(x, 0, 1, 10);
    }
    const end = (value) => Number(value.toPrecision(4)).toString();
    box.append(end(scatter.ends[0]), ramp, end(scatter.ends[1]));
    return;
  }
  label.groups.forEach((group, code) => {
    const item = document.createElement("span"), sample = document.createElement("canvas");
    Object.assign(sample, { width: 14, height: 14 });
    const ctx = sample.getContext("2d");
    ctx.fillStyle = groupColour(code);
    ctx.beginPath();
    marker(ctx, code, 7, 7, 5);
    ctx.fill();
    item.append(sample, `${group} (${label.codes.filter((c) => c === code).length})`);
    box.append(item);
  });
}
