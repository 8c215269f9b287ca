// The session's history, the mixer, the way of a request and a seam's measure: what is pure of the page.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { distinct } from "../../../looper/web/page/audio/loop.js";
import { HIGHEST, levels, LOWEST } from "../../../looper/web/page/audio/mix.js";
import { CLICK, clickRatio } from "../../../looper/web/page/audio/seam.js";
import { HELP, modelWords } from "../../../looper/web/page/help.js";
import { confidences, journey, leftWords, stages, whereabouts } from "../../../looper/web/page/journey.js";
import { add, moreLikeThis, MOST, starred, summary, turnStar } from "../../../looper/web/page/session/history.js";

const runs = { numRuns: Number(process.env.RUNS ?? 300) };
const set = (id, stars = []) => ({ id, stars, values: { prompt: "house", bpm: 124, seed: -1 }, seed: 7, files: [{}, {}] });

test("what was made last stands first, and the oldest without a star goes", () => {
  let sets = [];
  for (let k = 0; k < MOST + 3; k++) sets = add(k === 2 ? turnStar(sets, "1", 0) : sets, set(String(k)));
  assert.equal(sets[0].id, String(MOST + 2));
  assert.equal(sets.length, MOST + 1);
  assert.deepEqual(sets.at(-1).id, "1"); // starred: it stays
  assert.deepEqual(starred(sets).map(({ set: { id }, index }) => [id, index]), [["1", 0]]);
  assert.equal(add(sets, sets[5]).length, sets.length); // the same one again
});

test("a star turned twice is as before, and more like this is the next seed", () => {
  const once = turnStar([set("a"), set("b")], "b", 1);
  assert.deepEqual(once.map(({ stars }) => stars), [[], [1]]);
  assert.deepEqual(turnStar(once, "b", 1), [set("a"), set("b")]);
  assert.deepEqual(moreLikeThis(set("a")), { prompt: "house", bpm: 124, seed: 8 });
  assert.equal(summary(once[1]), "124 BPM · 2 loops · seed 7 · 1 starred");
});

const strip = fc.record({ on: fc.boolean(), solo: fc.boolean(), decibels: fc.integer({ min: LOWEST, max: HIGHEST }) });
test("a mix never clips, a solo silences the others, one loop alone is untouched", () => {
  fc.assert(fc.property(fc.array(strip, { minLength: 1, maxLength: 20 }), (strips) => {
    const found = levels(strips);
    assert.ok(found.reduce((sum, one) => sum + one, 0) <= 1 + 1e-9);
    const soloed = strips.some(({ solo }) => solo);
    strips.forEach(({ on, solo, decibels }, i) => assert.equal(found[i] > 0, (soloed ? solo : on) && decibels > LOWEST));
  }), runs);
  assert.deepEqual(levels([{ on: true, decibels: 0 }, { on: false, decibels: 0 }]), [1, 0]);
  assert.deepEqual(levels([{ on: true, decibels: 0 }, { on: true, decibels: 0 }]), [0.5, 0.5]);
});

const line = (stage, done, total, clock = "00:02<00:03") => `${stage}:  ${Math.floor((100 * done) / total)}%|###  | ${done}/${total} [${clock}, 98.1it/s]\n`;

test("the whole way never goes back, whatever the rounds", () => {
  const word = fc.constantFrom("candidates", "variations", "loops");
  fc.assert(fc.property(fc.array(fc.tuple(word, fc.integer({ min: 1, max: 10 }))), fc.integer({ min: 1, max: 20 }), (marks, variations) => {
    let before = 0;
    marks.forEach((_, i) => {
      const { percent } = journey(marks.slice(0, i + 1).map(([stage, done]) => line(stage, done, 10)).join(""), variations);
      assert.ok(percent >= before && percent <= 100);
      before = percent;
    });
  }), runs);
});

test("the way is told in words of music", () => {
  assert.deepEqual(journey(line("candidates", 5, 10), 4), { words: "Playing four first takes, to pick the best", percent: 23, left: "about 7 s left" });
  const again = line("candidates", 10, 10) + line("candidates", 1, 10);
  assert.match(journey(again, 4).words, /playing four more/);
  assert.equal(journey(again, 4).percent, 46);
  assert.match(journey(again + line("variations", 2, 10), 4).words, /^Playing variations 2 to 4, on from the end of loop 1$/);
  assert.match(journey(line("variations", 2, 10), 2).words, /^Playing variation 2,/);
  assert.equal(journey(line("candidates", 10, 10), 1).percent, 92);
  assert.equal(journey(line("loops", 4, 4), 4).percent, 100);
  assert.deepEqual(stages("no progress\n50 % off\n50%| |\n"), [{ stage: "", round: 1, share: 0.5, took: 0 }]);
  assert.deepEqual([leftWords(0.4), leftWords(7.2), leftWords(31), leftWords(200), leftWords(NaN)], ["", "about 8 s left", "about 35 s left", "about 3 min left", ""]);
});

test("one that waits in line is told its place, one whose server is away that it is kept", () => {
  assert.equal(whereabouts({ place: 3 }).words, "Place 3 in line");
  assert.equal(whereabouts({ place: 1 }).words, "Next in line");
  assert.equal(whereabouts().words, "Waiting for the model…");
  assert.match(whereabouts({ away: true, logs: line("loops", 1, 4) }).words, /request is kept/);
});

test("how sure each loop is stands in the log", () => {
  assert.deepEqual(confidences("x\nvariation 01: played at 123.98 BPM, confidence 0.93\nvariation 02: played at 124.10 BPM, confidence 1\n"), [0.93, 1]);
  assert.deepEqual(confidences(""), []);
});

test("what plays under a model's name is said, and under which licence", () => {
  assert.match(modelWords("medium", { here: true, model: "tiny", demo: true, licence: "Apache-2.0" }), /Plays “tiny”.*not MusicGen. .*Apache-2.0/);
  assert.match(modelWords("large", { here: true, model: "large", licence: "CC-BY-NC-4.0" }), /Plays MusicGen large.*not for commercial use/);
  assert.match(modelWords("medium", { here: true, model: "mine" }), /its maker/i);
  assert.match(modelWords("large", { here: false, remedy: "run `looper weights get large`" }), /Not on this server: run/);
  for (const { help } of Object.values(HELP)) assert.ok(help.length < 90);
});

const buffer = (x) => ({ numberOfChannels: 1, getChannelData: () => x });
test("a wrap in the middle of a wave is a click, one at its end is none", () => {
  const tone = Float32Array.from({ length: 32000 }, (_, i) => 0.5 * Math.sin((2 * Math.PI * i) / 100));
  assert.ok(clickRatio(buffer(tone)) < CLICK);
  assert.ok(clickRatio(buffer(tone.subarray(0, 31975))) > 10 * CLICK);
  assert.equal(clickRatio(buffer(new Float32Array(1000))), 0);
});

test("no two files of a .zip have one name", () => {
  assert.deepEqual(distinct(["a_01.wav", "a_02.wav", "a_01.wav", "b", "a_01.wav", "b"]), ["a_01.wav", "a_02.wav", "a_01_2.wav", "b", "a_01_3.wav", "b_2"]);
});
