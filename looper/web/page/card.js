// One loop on the page: its name, what sets it apart, its waveform, and what can be done with it.

import { el } from "./form.js";
import { dragOut } from "./drag.js";
import { CLICK } from "./audio/seam.js";
import { HIGHEST, LOWEST } from "./audio/mix.js";
import { count, outline } from "./audio/loop.js";

const MOST_LINES = 256;
const number = (x, digits = 2) => String(Number(x.toFixed(digits)));
export { number };

function svg(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function wave(loop, full) {
  const picture = svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const beats = loop.beats ?? loop.bars;
  const steps = [1, beats / loop.bars, 2 ** Math.ceil(Math.log2(loop.bars / MOST_LINES)) * (beats / loop.bars)];
  const step = steps.find((size) => beats / size <= MOST_LINES); // beats, else bars, else as many bars as can be seen
  for (let beat = 0; beat <= beats; beat += step) {
    const x = (1000 * beat) / beats;
    picture.append(svg("line", { x1: x, x2: x, y1: 0, y2: 100, class: beat % (beats / loop.bars) ? "beat" : "bar" }));
  }
  picture.append(svg("path", { d: outline(loop, full) }));
  return picture;
}

const joined = (facts) => facts.filter(Boolean).map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · ");

/** What a loop is, where a whole set often is the same. */
const shared = (loop) => [loop.bpm && `${number(loop.bpm, 3)} BPM`, loop.bpm && count(loop), `${number(loop.seconds)} s`, loop.key];

/** Which of those all `loops` have in common. */
export function common(loops) {
  const [first, ...others] = loops.map(shared);
  return (first ?? []).filter((fact, i) => fact && others.every((facts) => facts[i] === fact));
}

export const commonWords = (loops) => joined(common(loops));

/** What sets a loop apart from its set, and how good it is. */
function facts(loop, known) {
  return joined([
    ...shared(loop).filter((fact) => !known.includes(fact)),
    loop.lufs > -Infinity ? `${loop.lufs.toFixed(1).replace("-", "\u2212")} LUFS` : "silent",
    loop.confidence !== undefined && `beat ${Math.round(100 * loop.confidence)} % sure`,
    loop.click !== undefined && (loop.click < CLICK ? "clean seam" : "seam clicks"),
  ]);
}

const HINT = "How sure the beat and bar line are, and whether the wrap stands out of the loop";

function mixer(name, onMix) {
  const button = (letter, word) => el("button", { type: "button", className: "strip", textContent: letter, title: word, ariaLabel: `${word} ${name}`, ariaPressed: "false" });
  const [mute, solo] = [button("M", "Mute"), button("S", "Solo")];
  const gain = el("input", { type: "range", min: LOWEST, max: HIGHEST, step: 1, value: 0, ariaLabel: `Gain of ${name}` });
  mute.addEventListener("click", () => onMix("mute"));
  solo.addEventListener("click", () => onMix("solo"));
  gain.addEventListener("input", () => onMix("gain", Number(gain.value)));
  gain.addEventListener("dblclick", () => onMix("gain", Number(gain.value = 0)));
  const said = el("output", { textContent: "0 dB" });
  return { node: el("div", { className: "mix", hidden: true }, mute, solo, gain, said), mute, solo, gain, said };
}

/**
 * The card of `loop`, number `index` of its set: {item, pick, get, strip, playhead, mix, star, tell()}.
 * `acts` are called as choose(), go(fraction), save(), mix(what, value), and where there are some, star() and vary().
 */
export function card(loop, index, { full, known, acts }) {
  const name = loop.label ?? loop.name;
  const said = el("span", { className: "facts", title: HINT });
  const pick = el("button", { type: "button", className: "pick", title: loop.comment ?? loop.name },
    el("b", { className: "number", textContent: index + 1 }), el("span", { className: "name", textContent: name }), said);
  pick.addEventListener("click", acts.choose);
  const get = el("button", { type: "button", className: "get", textContent: "Download", ariaLabel: `Download ${loop.name}` });
  get.addEventListener("click", acts.save);
  const drag = el("span", { className: "drag", textContent: "⠿", title: "Drag this loop into your DAW or a folder (Chrome, Edge); or download it", ariaHidden: "true" });
  dragOut(drag, loop);
  const star = acts.star ? el("button", { type: "button", className: "star", textContent: "☆", ariaLabel: `Star ${name}`, ariaPressed: "false" }) : null;
  star?.addEventListener("click", acts.star);
  const vary = acts.vary ? el("button", { type: "button", className: "vary", textContent: "Continue", title: "Make variations that go on from the end of this loop", ariaLabel: `Continue ${name}` }) : null;
  vary?.addEventListener("click", acts.vary);
  const playhead = el("i", { className: "playhead" });
  const strip = el("div", { className: "wave", ariaLabel: `Position in ${name}` }, wave(loop, full), playhead);
  strip.addEventListener("click", ({ clientX }) => {
    const { left, width } = strip.getBoundingClientRect();
    acts.go((clientX - left) / width);
  });
  const mix = mixer(name, acts.mix);
  const tools = el("div", { className: "tools" }, ...[star, drag, vary, get].filter(Boolean));
  const item = el("li", {}, el("div", { className: "head" }, pick, tools), strip, mix.node);
  const tell = () => { said.textContent = facts(loop, known); };
  tell();
  return { item, pick, get, strip, playhead, mix, star, tell };
}

/** Show whether a card is starred. */
export function showStar({ star }, on) {
  if (!star) return;
  star.textContent = on ? "★" : "☆";
  star.ariaPressed = String(on);
}

/** Show where a card's strip of the mixer stands: {on, solo, decibels}, heard or not; null while there are no layers. */
export function showStrip({ item, mix, pick }, strip, heard) {
  mix.node.hidden = !strip;
  item.classList.toggle("on", Boolean(strip) && heard);
  if (!strip) return;
  pick.setAttribute("aria-pressed", strip.on);
  mix.mute.ariaPressed = String(!strip.on);
  mix.solo.ariaPressed = String(strip.solo);
  mix.said.textContent = strip.decibels <= LOWEST ? "silent" : `${strip.decibels > 0 ? "+" : ""}${String(strip.decibels).replace("-", "\u2212")} dB`;
}
