// What the page says of a length before it is made.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { lengthWords, loopBeats, secondsFor } from "../../../looper/web/page/length.js";

const runs = { numRuns: Number(process.env.RUNS ?? 300) };
const tempo = fc.double({ min: 40, max: 300, noNaN: true });
const seconds = fc.integer({ min: 2, max: 20 });

test("a loop fits, and one twice as long would not", () => {
  fc.assert(fc.property(tempo, seconds, (bpm, longest) => {
    const beats = loopBeats(bpm, longest);
    assert.ok((beats * 60) / bpm <= longest + 1e-6);
    assert.ok((beats * 120) / bpm > longest - 1e-6 || beats === 2);
  }), runs);
});

test("the seconds for so many bars give just those", () => {
  fc.assert(fc.property(tempo, fc.constantFrom(1, 2, 4, 8), (bpm, bars) => {
    const found = secondsFor(bars, bpm, 2, 20);
    if (found !== undefined) assert.equal(loopBeats(bpm, found), 4 * bars);
    else for (let s = 2; s <= 20; s++) assert.notEqual(loopBeats(bpm, s), 4 * bars);
  }), runs);
});

test("bars and seconds in words, and a warning below a bar", () => {
  assert.equal(lengthWords(124, 8), "4 bars · 7.74 s");
  assert.equal(lengthWords(120, 8), "4 bars · 8.00 s");
  assert.equal(lengthWords(120, 2), "1 bar · 2.00 s");
  assert.equal(lengthWords(40, 2), "Only 1 beat · 1.50 s: a bar takes 6.00 s here. Allow more, or a faster tempo.");
  assert.equal(lengthWords(NaN, 8), "");
});
