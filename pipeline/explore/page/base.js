// Small things that every part of the page uses.

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function svg(tag, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

// A number as people write it: 1.5, 1,5, −1.5; null where it is none.
export function parseNumber(text) {
  const plain = String(text).trim().replace(/[\u2212\u2013]/g, "-").replace(/\s/g, "").replace(",", ".");
  return /^[+-]?(\d+\.?\d*|\.\d+)$/.test(plain) ? Number(plain) : null;
}

export const signed = (value, digits = 2) => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(digits);
export const plain = (value, digits = 2) => (value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(digits);
export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : noun === "person" ? "" : "s"}`.replace(/^(?!1 )(.*) person$/, "$1 people");
}

// Colours that people with any colour vision tell apart (Okabe and Ito), beside the marker's shape.
export const GROUP_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c7a00", "#7a7a7a"];
const DARK_COLOURS = ["#58a9e8", "#f0b43c", "#2fc79c", "#e3a0c6", "#9bd3f5", "#ff8a4a", "#e6d94a", "#b0b0b0"];
const CIVIDIS = [[0, 32, 77], [45, 64, 109], [87, 93, 109], [124, 123, 120], [166, 157, 117], [212, 193, 100], [255, 234, 70]];

export const isDark = () => document.documentElement.dataset.theme === "dark";
export const groupColour = (index) => (isDark() ? DARK_COLOURS : GROUP_COLOURS)[index % GROUP_COLOURS.length];

export function rampColour(share) {
  const place = clamp(share, 0, 1) * (CIVIDIS.length - 1), i = Math.min(CIVIDIS.length - 2, Math.floor(place));
  const mixed = CIVIDIS[i].map((low, c) => Math.round(low + (place - i) * (CIVIDIS[i + 1][c] - low)));
  return `rgb(${mixed.join(",")})`;
}

export const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Whether the browser let the text be copied; pages of other computers it lets copy nothing.
export async function copyText(text) {
  try { await navigator.clipboard.writeText(text); return true; } catch { return false; }
}

export function saveFile(name, blob) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
