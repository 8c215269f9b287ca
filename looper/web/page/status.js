// What the page says while it works and when something went wrong.

import { whereabouts } from "./journey.js";

const $ = (id) => document.getElementById(id);

/** Tell a failure, or take the last one away. */
export function fail(error) {
  $("error").textContent = error?.message ?? "";
  $("error").hidden = !error;
}

/** Tell what went as it was asked: seen, and heard by a screen reader. */
export function note(words = "") {
  $("note").textContent = words;
  $("note").hidden = !words;
  if (words) $("live").textContent = words;
}

/** Show how far a request for so many variations is. */
export function showProgress(state, variations) {
  const { words, percent, left } = whereabouts(state, variations);
  $("stage").textContent = [words, percent !== undefined && `${percent} %`, left].filter(Boolean).join(" · ");
  if (percent === undefined) $("bar").removeAttribute("value");
  else $("bar").value = percent;
  if ($("live").textContent !== words) $("live").textContent = words; // a screen reader hears stages, not percents
}

/** Bring an element into view where the window is so narrow that all stands in one column. */
export function bringUp(id) {
  if (!matchMedia("(max-width: 56rem)").matches) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $(id).scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
}
