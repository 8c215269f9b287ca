// The player's part of the page: cards, transport, keys, downloads.

import { downloadZip } from "./vendor/client-zip/index.js";
import { Engine } from "./engine.js";
import { el } from "./form.js";
import { count, decode, outline } from "./loop.js";

const $ = (id) => document.getElementById(id);
const say = (words) => { $("live").textContent = words; };
const engine = new Engine();
let loops = [];
let cards = [];
let title = "loops";

function svg(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function wave(loop) {
  const picture = svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const beats = loop.beats ?? loop.bars;
  for (let beat = 0; beat <= beats; beat++) {
    const x = (1000 * beat) / beats;
    picture.append(svg("line", { x1: x, x2: x, y1: 0, y2: 100, class: beat % (beats / loop.bars) ? "beat" : "bar" }));
  }
  picture.append(svg("path", { d: outline(loop) }));
  return picture;
}

const number = (x, digits = 2) => String(Number(x.toFixed(digits)));
const facts = (loop) => [
  loop.bpm && `${number(loop.bpm, 3)} BPM`,
  loop.bpm && count(loop),
  loop.key,
  `${number(loop.seconds)} s`,
].filter(Boolean).join(" · ");

const save = (blob, name) => {
  const href = URL.createObjectURL(blob);
  el("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
};

function card(loop, index) {
  const head = el("div", { className: "row" },
    el("b", { className: "number", textContent: index + 1 }),
    el("span", { className: "name", textContent: loop.label ?? loop.name }),
    el("span", { className: "facts", textContent: facts(loop) }));
  const playhead = el("i", { className: "playhead" });
  const pick = el("button", { type: "button", className: "pick", title: loop.comment ?? loop.name }, head, el("div", { className: "wave" }, wave(loop), playhead));
  pick.addEventListener("click", () => choose(index));
  const get = el("button", { type: "button", className: "get", textContent: "Download", ariaLabel: `Download ${loop.name}` });
  get.addEventListener("click", () => save(new Blob([loop.bytes]), loop.name));
  return { item: el("li", {}, pick, get), pick, playhead };
}

function choose(index) {
  if (!loops[index]) return;
  engine.select(index);
  if (engine.pending) say(`Loop ${index + 1} at the next bar line`);
  show();
}

function toggle() {
  if (engine.playing) engine.stop();
  else engine.play();
  show();
  if (engine.playing) requestAnimationFrame(frame);
}

/** What changes seldom: which loop is heard, which comes next, playing or not. */
function show() {
  cards.forEach(({ item, pick }, index) => {
    item.classList.toggle("current", index === engine.current);
    item.classList.toggle("next", index === engine.pending?.index);
    pick.setAttribute("aria-pressed", index === engine.current);
  });
  $("play").textContent = engine.playing ? "Stop" : "Play";
  $("play").setAttribute("aria-pressed", engine.playing);
}

/** What changes with every frame: playhead, bar and beat, level. */
function frame() {
  const before = engine.current;
  const { index, phase } = engine.position();
  if (before !== index || cards[index]?.pick.getAttribute("aria-pressed") === "false") show();
  const loop = loops[index];
  if (loop) {
    cards[index].playhead.style.left = `${phase * 100}%`;
    const beat = Math.floor(phase * (loop.beats ?? loop.bars) + 1e-6);
    const perBar = (loop.beats ?? loop.bars) / loop.bars;
    $("where").firstChild.textContent = `${Math.floor(beat / perBar) + 1}.${(beat % perBar) + 1}`;
  }
  $("level").lastChild.value = Math.max(-60, engine.level());
  if (engine.playing) requestAnimationFrame(frame);
}

function nudge(percent) {
  engine.nudge(1 + percent / 100);
  const { bpm } = loops[engine.current] ?? {};
  const change = `${percent > 0 ? "+" : ""}${number(percent, 1)} %`;
  const words = bpm ? `${number(bpm * (1 + percent / 100))} BPM${percent ? ` (${change})` : ""}` : change;
  $("tempo").querySelector("output").value = words;
  $("nudge").setAttribute("aria-valuetext", words);
}

/** Show files [{name, bytes, label, hints}] as loops; resolves to the decoded loops. Playback goes on with them if it was on. */
export async function present(files, name = "loops") {
  const decoded = await Promise.all(files.map((file) => decode(file).then((loop) => ({ ...loop, label: file.label }),
    () => { throw new Error(`${file.name} is not a sound file that this browser can play.`); })));
  const was = engine.playing;
  title = name;
  loops = decoded;
  engine.load(loops, loops[0]?.buffer.sampleRate);
  cards = loops.map(card);
  $("loops").replaceChildren(...cards.map(({ item }) => item));
  for (const id of ["transport", "keys"]) $(id).hidden = !loops.length;
  $("empty").hidden = loops.length > 0;
  $("all").hidden = loops.length < 2;
  nudge(Number($("nudge").value));
  if (was) toggle();
  show();
  say(`${loops.length} ${loops.length === 1 ? "loop" : "loops"} ready`);
  return loops;
}

/** Name the loops' files by `name(loop, index)`: what it needs is known only after decoding. */
export function nameFiles(name) {
  loops.forEach((loop, index) => {
    loop.name = name(loop, index);
    cards[index].item.lastChild.ariaLabel = `Download ${loop.name}`;
  });
  title = loops[0]?.name.replace(/_\d+\.\w+$/, "") ?? title;
}

$("play").addEventListener("click", toggle);
$("nudge").addEventListener("input", ({ target }) => nudge(Number(target.value)));
$("nudge").addEventListener("dblclick", () => nudge(Number($("nudge").value = 0)));
$("all").addEventListener("click", async () => {
  const entries = loops.map(({ name, bytes }) => ({ name, input: bytes }));
  save(await downloadZip(entries).blob(), `${title}.zip`);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("textarea, select, input:not([type=range])")) return;
  if (/^[1-9]$/.test(event.key)) choose(Number(event.key) - 1);
  else if (event.key === "0") nudge(Number($("nudge").value = 0));
  else if (event.key === " " && loops.length && !event.target.closest("button, summary")) toggle();
  else return;
  event.preventDefault();
});

export { engine }; // for tests in a browser
