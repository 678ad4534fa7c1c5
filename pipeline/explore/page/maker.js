// Asks for brains while a slider moves: a quick preview first, the whole brain once it rests.

import { Superseded } from "./source.js";

const MOST_KEPT = 48;

export class Maker {
  constructor(source, { onBrain, onError, onWork }) {
    Object.assign(this, { source, onBrain, onError, onWork });
    this.kept = new Map();
    this.wish = null;
    this.isBusy = false;
  }

  // `wish(quality)` returns { brain, base }: what is shown, and what it is compared with.
  want(wish) {
    this.wish = wish;
    if (!this.isBusy || this.isFull) return this.work();
    return this.running;
  }

  work() {
    this.isBusy = true;
    this.isFull = false;
    const number = this.source.next();
    this.running = this.follow(number);
    return this.running;
  }

  async follow(number) {
    try {
      for (;;) {
        const wish = this.wish, full = wish("full");
        if (!full.brain) break;
        if (!this.has(full) && this.source.live) {
          this.onWork("preview");
          await this.get(wish("preview"), number);
          if (number !== this.source.number) return;
          this.onBrain(this.found(wish("preview")), "preview");
          if (wish !== this.wish) continue;
        }
        // From here on a newer wish does not wait: its higher number makes the server give up this one.
        this.isFull = true;
        this.onWork("full");
        await this.get(full, number);
        if (number !== this.source.number) return;
        this.onBrain(this.found(full), "full");
        this.isFull = false;
        if (wish === this.wish) break;
      }
      this.onWork(null);
    } catch (error) {
      if (error instanceof Superseded || number !== this.source.number) return;
      this.onWork(null);
      this.onError(error);
    } finally {
      if (number === this.source.number) this.isBusy = this.isFull = false;
    }
  }

  async get({ brain, base }, number) {
    for (const asked of base ? [base, brain] : [brain]) await this.one(asked, number);
  }

  async one(brain, number = this.source.number) {
    const key = JSON.stringify(brain);
    if (!this.kept.has(key)) this.kept.set(key, await this.source.brain(brain, number));
    const found = this.kept.get(key);
    this.kept.delete(key);
    this.kept.set(key, found);
    while (this.kept.size > MOST_KEPT) this.kept.delete(this.kept.keys().next().value);
    return found;
  }

  has({ brain, base }) {
    return this.kept.has(JSON.stringify(brain)) && (!base || this.kept.has(JSON.stringify(base)));
  }

  found({ brain, base }) {
    const of = (asked) => (asked ? this.kept.get(JSON.stringify(asked)) : null);
    return { brain, made: of(brain), base: of(base) };
  }
}
