// Where the page has its data from: the server on this computer, or the file itself (kept.js).

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
    const options = { headers: { "x-explore-token": this.token } };
    if (question) Object.assign(options, { method: "POST", body: JSON.stringify(question) });
    let answer;
    try {
      answer = await fetch(`/api/${path}`, options);
    } catch {
      this.onLost(true);
      throw new Error("The server does not answer. Is `pipeline explore` still running? Start it again, and open the address that it prints.");
    }
    this.onLost(false);
    const info = JSON.parse(answer.headers.get("x-explore") || "{}");
    if (info.superseded) throw new Superseded();
    if (!answer.ok) throw new Error((await answer.json()).error || `The server answers ${answer.status}.`);
    return { answer, info };
  }

  async json(path, question) {
    return (await this.ask(path, question)).answer.json();
  }

  study() { return this.json("study"); }
  status() { return this.json("status"); }
  layout(kind) { return this.json(`layout?kind=${encodeURIComponent(kind)}`); }
  command(brain, space) { return this.json("command", { brain, space }).then((found) => found.command); }

  async volume(scan) {
    const { answer, info } = await this.ask(`volume?scan=${encodeURIComponent(scan)}`);
    return { levels: new Uint8Array(await answer.arrayBuffer()), ...info };
  }

  // A newer number makes the server give up older ones.
  next() { return ++this.number; }

  async brain(brain, number) {
    const { answer, info } = await this.ask("brain", { brain, client: this.client, number });
    return { levels: new Uint8Array(await answer.arrayBuffer()), ...info };
  }

  regions(brain, number) {
    return this.json("regions", { brain, client: this.client, number });
  }

  async file(path, question) {
    const { answer } = await this.ask(path, question);
    const named = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") || "");
    return { name: named ? named[1] : path, blob: await answer.blob() };
  }
}
