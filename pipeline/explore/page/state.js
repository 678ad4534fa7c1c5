// The state of the page, and its link: what stands behind the # brings all of it back.

export const START = {
  mode: "move", scan: null, other: null, direction: null, scale: 0, alpha: 0, seed: 0, prior: false,
  layout: "pca", colour: null, view: "one", against: "model", difference: false, threshold: 13, voxel: null,
};
const MODES = ["move", "between", "vary", "noise"];
const VIEWS = ["one", "side", "swipe"];

export const REACH = 4;

export function readLink(hash, study) {
  const given = new URLSearchParams(hash.replace(/^#/, "")), state = { ...START };
  const among = (name, values) => { if (values.includes(given.get(name))) state[name] = given.get(name); };
  const number = (name, low, high) => {
    const value = Number(given.get(name));
    if (given.get(name) !== null && Number.isFinite(value)) state[name] = Math.min(high, Math.max(low, value));
  };
  among("mode", MODES);
  among("view", VIEWS);
  among("scan", study.scans);
  among("other", study.scans);
  among("direction", study.directions.map((d) => d.name));
  among("layout", study.layouts);
  among("colour", study.labels.map((l) => l.name));
  among("against", ["model", "scan", "other", ...study.scans]);
  number("scale", -REACH, REACH);
  number("alpha", 0, 1);
  number("seed", 0, 2 ** 31 - 1);
  number("threshold", 1, 40);
  state.seed = Math.round(state.seed);
  state.difference = given.get("difference") === "true";
  state.prior = given.get("prior") === "true";
  const voxel = (given.get("voxel") || "").split(",").map(Number);
  if (voxel.length === 3 && voxel.every((v) => Number.isInteger(v) && v >= 0)) state.voxel = voxel;
  return state;
}

export function linkOf(state) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (value !== null && String(value) !== String(START[name])) given.set(name, Array.isArray(value) ? value.join(",") : value);
  }
  return `#${given}`;
}

// The brain that the page shows, as the server is asked for it; null where something is missing.
export function brainOf(state, quality = "full") {
  const { scan, other, direction } = state;
  if (state.mode === "noise") return { kind: "noise", seed: state.seed, prior: state.prior, quality };
  if (!scan) return null;
  if (state.mode === "vary") return { kind: "vary", scan, seed: state.seed, quality };
  if (state.mode === "between") return other && other !== scan ? { kind: "between", scan, other, alpha: state.alpha, quality } : null;
  return direction ? { kind: "move", scan, direction, scale: state.scale, quality } : { kind: "scan", scan, quality };
}

// Whether two brains differ by nothing but how far they moved.
export function isSameSweep(one, other) {
  return Boolean(one && other) && ["kind", "scan", "other", "direction"].every((name) => one[name] === other[name]);
}

// What a brain is compared with, and its difference is taken from.
export function baseOf(state, quality = "full") {
  const brain = brainOf(state, quality);
  if (!brain || brain.kind === "noise") return null;
  if (brain.kind === "move") return { ...brain, scale: 0 };
  if (brain.kind === "between") return { ...brain, alpha: 0 };
  return { kind: "scan", scan: brain.scan, quality };
}
