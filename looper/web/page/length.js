// How long loops will be, before they are made: the server's own rule, for its bars of four beats.

import { el } from "./form.js";

const METRE = 4;
const BARS = [1, 2, 4, 8];
const SLACK = 1e-9; // 4 bars at 120 BPM are 8 s, and fit 8 s in floating point too

/** Beats of the longest loop within `seconds`: a power-of-two number of bars, else two beats or one; 0 if none fits. */
export function loopBeats(bpm, seconds) {
  const fitting = Math.floor((seconds * bpm) / 60 + SLACK);
  if (fitting >= METRE) return METRE * 2 ** Math.floor(Math.log2(Math.floor(fitting / METRE)));
  return Math.max(0, Math.min(2, fitting));
}

/** The whole seconds within `min` to `max` that give exactly so many bars, or undefined. */
export function secondsFor(bars, bpm, min, max) {
  const seconds = Math.max(min, Math.ceil((bars * METRE * 60) / bpm - SLACK));
  return seconds <= max && loopBeats(bpm, seconds) === bars * METRE ? seconds : undefined;
}

const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

/** The length in words: "4 bars · 7.74 s"; what is shorter than a bar says so. */
export function lengthWords(bpm, seconds) {
  const beats = loopBeats(bpm, seconds);
  if (!beats || !Number.isFinite(beats)) return "";
  const lasts = `${((beats * 60) / bpm).toFixed(2)} s`;
  if (beats >= METRE) return `${count(beats / METRE, "bar")} · ${lasts}`;
  return `Only ${count(beats, "beat")} · ${lasts}: a bar takes ${((METRE * 60) / bpm).toFixed(2)} s here. Allow more, or a faster tempo.`;
}

/** Below the longest duration: buttons for bars, and what will come out, kept in step with tempo and duration. */
export function showLength(form) {
  const [bpm, longest] = ["bpm", "max_duration"].map((name) => form.elements.namedItem(name));
  if (!bpm || !longest) return;
  let chosen; // bars, until a duration is typed
  const said = el("output", { id: "length" });
  said.htmlFor.add(bpm.id, longest.id);
  const buttons = BARS.map((bars) => el("button", { type: "button", textContent: bars, ariaLabel: count(bars, "bar") }));
  const [min, max] = [Number(longest.min), Number(longest.max)];

  function update() {
    const tempo = Number(bpm.value);
    const kept = chosen && secondsFor(chosen, tempo, min, max);
    if (kept && Number(longest.value) !== kept) longest.value = kept;
    const words = bpm.validity.valid && longest.validity.valid ? lengthWords(tempo, Number(longest.value)) : "";
    if (said.textContent !== words) said.textContent = words;
    said.classList.toggle("warning", words.startsWith("Only"));
    const beats = loopBeats(tempo, Number(longest.value));
    buttons.forEach((button, i) => {
      button.disabled = secondsFor(BARS[i], tempo, min, max) === undefined;
      button.ariaPressed = String(beats === BARS[i] * METRE);
    });
  }

  buttons.forEach((button, i) => button.addEventListener("click", () => { chosen = BARS[i]; update(); }));
  longest.addEventListener("input", () => { chosen = undefined; });
  form.addEventListener("input", update);
  const group = el("div", { className: "bars", role: "group", ariaLabel: "Bars" }, ...buttons, el("span", { textContent: "bars" }));
  longest.closest(".field").append(group, said);
  update();
}
