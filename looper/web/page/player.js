// The player's part of the page: cards, transport, layers, keys, downloads.

import { downloadZip } from "./vendor/client-zip/index.js";
import { Engine } from "./audio/engine.js";
import { decode, distinct, peak } from "./audio/loop.js";
import { levels } from "./audio/mix.js";
import { clickRatio } from "./audio/seam.js";
import { card, common, commonWords, number, showStar, showStrip } from "./card.js";
import { el } from "./form.js";

const $ = (id) => document.getElementById(id);
const say = (words) => { $("live").textContent = words; };
const engine = new Engine();
let loops = [];
let cards = [];
let strips = null; // the mixer's, while there are layers
let title = "loops";

const save = (blob, name) => {
  const href = URL.createObjectURL(blob);
  el("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
};

function choose(index) {
  if (!loops[index]) return;
  if (strips && !engine.layers(index)) say(`Loop ${index + 1} has another length or metre: it cannot be a layer of these`);
  else if (strips) mix(index, "mute");
  else {
    engine.select(index);
    if (engine.pending) say(`Loop ${index + 1} at the next bar line`);
  }
  show();
}

/** Turn a strip of the mixer; a loop that comes in is where the playhead is told. */
function mix(index, what, value) {
  const strip = strips[index];
  if (what === "mute") strip.on = !strip.on;
  else if (what === "solo") strip.solo = !strip.solo;
  else strip.decibels = value;
  engine.mix(levels(strips));
  if (what === "mute" && strip.on) engine.select(index);
  show();
}

/** Several loops at once, or one again. */
function layer(on) {
  const usable = on && loops.length > 0;
  strips = usable ? loops.map((_, index) => ({ on: index === engine.current, solo: false, decibels: 0 })) : null;
  engine.mix(usable ? levels(strips) : null);
  for (const { mix: { gain } } of cards) gain.value = 0;
  $("layers").setAttribute("aria-pressed", usable);
  if (usable) say("Layers: each loop that you choose comes in beside the others");
  show();
}

function toggle() {
  if (engine.playing) engine.stop();
  else engine.play();
  show();
  if (!engine.playing) return;
  requestAnimationFrame(frame);
  setTimeout(listen, 3000);
}

/** Say so when the browser lets no sound out: without a sound device some wait for one without a word. */
function listen() {
  if (!engine.playing || engine.ctx.state === "running") return;
  $("error").textContent = "The browser has not started the sound: is a sound device there, and is sound allowed for this page?";
  $("error").hidden = false;
}

const beatsOf = (loop) => loop.beats ?? loop.bars;

/** Bar and beat at `phase` of a loop, counted from 1. */
function at(loop, phase) {
  const beat = Math.floor(phase * beatsOf(loop) + 1e-3); // places are whole frames, beat lines seldom are
  const perBar = beatsOf(loop) / loop.bars;
  return { beat, bar: Math.floor(beat / perBar) + 1, inBar: (beat % perBar) + 1 };
}

function seek(frame) {
  engine.seek(frame);
  tell(cards[engine.current].strip);
  place();
}

/** Move by whole beats: in time while it plays, to the next beat line while it stands. */
function step(beats) {
  const loop = loops[engine.current];
  if (!loop) return;
  const beat = loop.buffer.length / beatsOf(loop);
  if (engine.playing) engine.move(beats * beat);
  else {
    const here = (engine.position().phase * loop.buffer.length) / beat;
    const line = beats > 0 ? Math.floor(here + 1e-3) : Math.ceil(here - 1e-3);
    engine.seek((line + beats) * beat);
  }
  tell(cards[engine.current].strip);
  place();
}

/** Tell a screen reader the place: when it is asked for and when the user moves, not with every beat. */
function tell(strip) {
  const loop = loops[engine.current];
  const { beat, bar, inBar } = at(loop, engine.position().phase);
  const values = { ariaValueMin: 1, ariaValueMax: beatsOf(loop), ariaValueNow: beat + 1, ariaValueText: `bar ${bar}, beat ${inBar}` };
  Object.assign(strip, values);
}

/** What changes seldom: which loop is heard, which comes next, playing or not. */
function show() {
  const focused = cards.some(({ strip }) => strip === document.activeElement);
  cards.forEach(({ item, pick, strip }, index) => {
    const current = index === engine.current;
    item.classList.toggle("current", current);
    item.classList.toggle("next", index === engine.pending?.index);
    pick.setAttribute("aria-pressed", current);
    showStrip(cards[index], strips && engine.layers(index) ? strips[index] : null, strips && levels(strips)[index] > 0);
    item.classList.toggle("apart", Boolean(strips) && !engine.layers(index));
    strip.role = current ? "slider" : null; // one position for all: one slider
    strip.tabIndex = current ? 0 : -1;
    strip.ariaHidden = current ? null : "true";
    if (current) tell(strip);
  });
  if (focused) cards[engine.current]?.strip.focus();
  $("play").textContent = engine.playing ? "Stop" : "Play";
  $("play").setAttribute("aria-pressed", engine.playing);
  place();
}

/** Playhead, bar and beat. */
function place() {
  const { index, phase } = engine.position();
  if (!loops[index]) return;
  for (const { playhead } of strips ? cards : [cards[index]]) playhead.style.left = `${phase * 100}%`;
  const { bar, inBar } = at(loops[index], phase);
  $("where").firstChild.textContent = `${bar}.${inBar}`;
}

/** What changes with every frame: the place and the level. */
function frame() {
  const before = engine.current;
  const { index } = engine.position();
  if (before !== index || !cards[index]?.item.classList.contains("current")) show();
  place();
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

/**
 * Show files [{name, bytes, label, hints, confidence}] as loops; resolves to the decoded loops. Playback goes on with them if it was on.
 * `onStar(index)` and `onVary(loop)`, where given, are what a card's star and "Continue" do.
 */
export async function present(files, { name = "loops", onStar, onVary } = {}) {
  const read = (file, rate) => decode(file, rate).then((loop) => ({ ...loop, label: file.label, confidence: file.confidence }),
    () => { throw new Error(`${file.name} is not a sound file that this browser can play.`); });
  const first = files.length ? await read(files[0]) : null; // its sample rate is everyone's
  const decoded = first ? [first, ...await Promise.all(files.slice(1).map((file) => read(file, first.buffer.sampleRate)))] : [];
  const was = engine.playing;
  title = name;
  loops = decoded;
  engine.load(loops, loops[0]?.buffer.sampleRate);
  const full = Math.max(...loops.map(peak)); // one scale for all: what looks louder is
  const known = common(loops);
  cards = loops.map((loop, index) => card(loop, index, { full, known, acts: {
    choose: () => choose(index),
    go: (share) => { if (index === engine.current || strips?.[index].on) seek(share * loop.buffer.length); else choose(index); },
    save: () => save(new Blob([loop.bytes]), loop.name),
    mix: (what, value) => mix(index, what, value),
    star: onStar && (() => onStar(index)),
    vary: onVary && (() => onVary(loop)),
  } }));
  for (const { strip } of cards) strip.addEventListener("focus", () => tell(strip));
  $("loops").replaceChildren(...cards.map(({ item }) => item));
  for (const id of ["transport", "keys", "facts"]) $(id).hidden = !loops.length;
  $("facts").textContent = commonWords(loops);
  $("empty").hidden = loops.length > 0;
  $("all").hidden = $("layers").hidden = loops.length < 2;
  nudge(Number($("nudge").value));
  layer(false);
  if (was) toggle();
  show();
  say(`${loops.length} ${loops.length === 1 ? "loop" : "loops"} ready`);
  look(loops, cards);
  return loops;
}

/** Look at the seams, one after the other: it takes a moment each, and nothing waits for it. */
async function look(those, theirs) {
  for (const [index, loop] of those.entries()) {
    await new Promise((resolve) => setTimeout(resolve));
    if (those !== loops) return; // others are shown by now
    loop.click = clickRatio(loop.buffer);
    theirs[index].tell();
  }
}

/** Show which loops are starred. */
export const showStars = (stars) => cards.forEach((one, index) => showStar(one, stars.includes(index)));

/** Name the loops' files by `name(loop, index)`: what it needs is known only after decoding. */
export function nameFiles(name) {
  const names = distinct(loops.map(name)); // two sets of starred loops may have the same words and seed
  loops.forEach((loop, index) => {
    loop.name = names[index];
    cards[index].get.ariaLabel = `Download ${loop.name}`;
  });
  title = loops[0]?.name.replace(/_\d+\.\w+$/, "") ?? title;
}

$("play").addEventListener("click", toggle);
$("layers").addEventListener("click", () => layer(!strips));
$("nudge").addEventListener("input", ({ target }) => nudge(Number(target.value)));
$("nudge").addEventListener("dblclick", () => nudge(Number($("nudge").value = 0)));
$("all").addEventListener("click", async () => {
  const entries = loops.map(({ name, bytes }) => ({ name, input: bytes }));
  save(await downloadZip(entries).blob(), `${title}.zip`);
});
const MOVES = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1 };

/** Keys of the position's slider, and of the page where nothing else takes them; true if there was something to do. */
function press(key, target) {
  const slider = target.role === "slider";
  const loop = loops[engine.current];
  const turn = slider && { Home: 0, End: beatsOf(loop) - 1 }[key];
  if (/^[1-9]$/.test(key)) choose(Number(key) - 1);
  else if (/^[np]$/i.test(key) && loop) choose(((engine.pending?.index ?? engine.current) + (/n/i.test(key) ? 1 : loops.length - 1)) % loops.length);
  else if (/^l$/i.test(key) && loops.length > 1) layer(!strips);
  else if (key === "0") nudge(Number($("nudge").value = 0));
  else if (key === " " && loop && !target.closest("button, summary")) toggle();
  else if (!loop || target.closest("input, summary")) return false;
  else if (Number.isInteger(turn)) seek((turn * loop.buffer.length) / beatsOf(loop));
  else if (slider && /^Page(Up|Down)$/.test(key)) step((key === "PageUp" ? 1 : -1) * (beatsOf(loop) / loop.bars));
  else if (MOVES[key] && (slider || /Left|Right/.test(key))) step(MOVES[key]);
  else return false;
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("textarea, select, input:not([type=range])")) return;
  if (press(event.key, event.target)) event.preventDefault();
});

export { engine }; // for tests in a browser
