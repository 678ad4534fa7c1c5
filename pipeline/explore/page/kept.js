// The data of a page that was written to one file: brains made beforehand, nothing to ask.

import { element } from "./base.js";

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export class KeptSource {
  constructor(document) {
    this.document = document;
    this.live = false;
    this.number = 0;
    this.opened = new Map();
  }

  next() { return ++this.number; }
  async study() { return this.document.study; }
  async status() { return this.document.study.status; }
  async layout(kind) { return this.document.layouts[kind]; }

  async open(name) {
    if (!this.opened.has(name)) {
      const script = document.getElementById(name);
      if (!script) throw new Error("This brain is not in this file. The points with a ring are.");
      this.opened.set(name, await unpacked(script.textContent));
    }
    return { levels: this.opened.get(name), seconds: 0 };
  }

  // Places that were made beforehand: the nearest answers.
  nearest(brain) {
    const scales = this.document.scales;
    return scales.reduce((best, s) => (Math.abs(s - brain.scale) < Math.abs(best - brain.scale) ? s : best));
  }

  volume(scan) { return this.open(`real|${scan}`); }
  brain(brain) {
    if (brain.kind === "scan") return this.open(`move|${brain.scan}|${this.document.study.directions[0]?.name}|0`);
    return this.open(`move|${brain.scan}|${brain.direction}|${this.nearest(brain)}`);
  }

  async regions(brain) {
    const found = this.document.regions[`${brain.scan}|${brain.direction}|${this.nearest(brain)}`];
    if (!found) throw new Error("");
    return found;
  }
}

export function keptDocument() {
  const script = document.getElementById("kept-document");
  return script ? JSON.parse(script.textContent) : null;
}

// The 3D view, where the file has it; without, or in an older browser, slices are shown.
export async function keptNiivue() {
  const packed = document.getElementById("kept-niivue");
  if (!packed || typeof DecompressionStream === "undefined") return;
  const script = element("script");
  script.textContent = new TextDecoder().decode(await unpacked(packed.textContent));
  document.head.append(script);
}

export function oldBrowser() {
  return typeof DecompressionStream === "undefined"
    ? element("p", {}, "This browser is too old to unpack the brains of this file; one of 2023 or later shows them.") : null;
}
