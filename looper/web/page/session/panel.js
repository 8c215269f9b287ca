// The list of what was made, on the page and in this browser's store.

import { el } from "../form.js";
import { add, isContinued, remove, starred, summary, turnStar } from "./history.js";
import { forget, keep, kept } from "./store.js";

const $ = (id) => document.getElementById(id);

/** `acts`: open(set), openStars([{set, index}]), more(set). */
export class History {
  sets = [];
  shown = null; // id of the set that is on the page

  constructor(acts) {
    this.acts = acts;
    $("stars").addEventListener("click", () => acts.openStars(starred(this.sets)));
  }

  async restore() {
    this.sets = await kept();
    this.draw();
  }

  /** Resolves when it is kept. */
  async add(set) {
    const before = this.sets;
    this.sets = add(this.sets, set);
    this.show(set.id);
    for (const { id } of before) if (!this.sets.some((one) => one.id === id)) forget(id);
    await keep(set);
  }

  show(id) {
    this.shown = id;
    this.draw();
  }

  /** Turn the star of a loop over; returns the set's stars. */
  turnStar(id, index) {
    this.sets = turnStar(this.sets, id, index);
    const set = this.sets.find((one) => one.id === id);
    if (set) keep(set);
    this.draw();
    return set?.stars ?? [];
  }

  async #remove(id, row) {
    await forget(id); // once it is off the list no reload brings it back
    const next = row.nextElementSibling ?? row.previousElementSibling;
    this.sets = remove(this.sets, id);
    const at = next && [...$("sets").children].indexOf(next) - (next === row.nextElementSibling ? 1 : 0);
    this.draw();
    ($("sets").children[at]?.querySelector("button") ?? $("player-title")).focus();
  }

  #row(set) {
    const title = set.values.prompt || "Loops";
    const open = el("button", { type: "button", className: "recall" },
      el("span", { className: "name", textContent: title }), el("small", { textContent: summary(set) }));
    if (set.id === this.shown) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => this.acts.open(set));
    const again = isContinued(set) ? [] : [el("button", { type: "button", textContent: "More", title: "More like this: the same words and settings, the next seed", ariaLabel: `More like ${title}` })];
    again[0]?.addEventListener("click", () => this.acts.more(set));
    const gone = el("button", { type: "button", textContent: "✕", title: "Remove from the list", ariaLabel: `Remove ${title}` });
    const row = el("li", {}, open, ...again, gone);
    gone.addEventListener("click", () => this.#remove(set.id, row));
    return row;
  }

  draw() {
    const stars = starred(this.sets).length;
    $("history").hidden = !this.sets.length;
    $("stars").hidden = !stars;
    $("stars").textContent = `★ Play the starred ${stars === 1 ? "loop" : `${stars} loops`}`;
    $("sets").replaceChildren(...this.sets.map((set) => this.#row(set)));
  }
}
