// Where the page has its data from: the server on this computer, or the file itself (kept.js).

export const LOST = "The server does not answer. Is `pipeline explore` still running? Start it again, and open the address that it prints.";

export class Superseded extends Error {}

export class LiveSource {
  constructor(token) {
    this.token = token;
    this.client = crypto.getRandomValues(new Uint32Array(2)).join("-");
    this.number = 0;
    this.live = true;
    this.onLost = () => {};
  }

  async ask(path, question = null) {
    const options = { headers: { "x-explore-token": encodeURIComponent(this.token) } };
    if (question) Object.assign(options, { method: "POST", body: JSON.stringify(question) });
    const answer = await this.unlessLost(fetch(`/api/${path}`, options));
    this.onLost(false);
    const info = JSON.parse(answer.headers.get("x-explore") || "{}");
    if (info.superseded) throw new Superseded("A newer brain was asked for meanwhile.");
    if (!answer.ok) {
      const said = await answer.json().catch(() => ({}));
      throw new Error(said.error || `The server answers ${answer.status}; its terminal may show why.`);
    }
    return { answer, info };
  }

  // A server can end before its answer begins, and in the midst of it.
  async unlessLost(promise) {
    try {
      return await promise;
    } catch {
      this.onLost(true);
      throw new Error(LOST);
    }
  }

  async json(path, question) {
    const { answer } = await this.ask(path, question);
    return this.unlessLost(answer.json());
  }

  async levels(path, question) {
    const { answer, info } = await this.ask(path, question);
    return { levels: new Uint8Array(await this.unlessLost(answer.arrayBuffer())), ...info };
  }

  study() { return this.json("study"); }
  status() { return this.json("status"); }
  layout(kind) { return this.json(`layout?kind=${encodeURIComponent(kind)}`); }
  command(brain, space) { return this.json("command", { brain, space }).then((found) => found.command); }

  volume(scan) { return this.levels(`volume?scan=${encodeURIComponent(scan)}`); }

  // A newer number makes the server give up older ones.
  next() { return ++this.number; }

  brain(brain, number) { return this.levels("brain", { brain, client: this.client, number }); }

  regions(brain, number) {
    return this.json("regions", { brain, client: this.client, number });
  }

  async file(path, question) {
    const { answer } = await this.ask(path, question);
    const named = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") || "");
    return { name: named ? named[1] : path, blob: await this.unlessLost(answer.blob()) };
  }
}
