// What the page's reader makes of files that anybody may have written.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { believable, chunks, describe, fits, named, sampleRate } from "../../../looper/web/page/audio/wav.js";

const runs = { numRuns: Number(process.env.RUNS ?? 300) };

const ascii = (text) => [...text].map((c) => c.charCodeAt(0) & 255);
const u32 = (x) => [x & 255, (x >>> 8) & 255, (x >>> 16) & 255, x >>> 24];
const chunk = (id, payload, claimed = payload.length) => [...ascii(id), ...u32(claimed), ...payload, ...(payload.length & 1 ? [0] : [])];
const riff = (...parts) => new Uint8Array([...ascii("RIFF"), ...u32(0), ...ascii("WAVE"), ...parts.flat()]).buffer;
const acid = (beats, metre, bpm) => chunk("acid", [...Array(12).fill(0), ...u32(beats), 4, 0, metre & 255, metre >> 8, ...new Uint8Array(new Float32Array([bpm]).buffer)]);
const comment = (text) => chunk("LIST", [...ascii("INFO"), ...chunk("ICMT", [...new TextEncoder().encode(text), 0])]);

const anyChunk = fc.tuple(
  fc.constantFrom("acid", "smpl", "fmt ", "data", "LIST", "cue ", "junk"),
  fc.array(fc.integer({ min: 0, max: 255 }), { maxLength: 80 }), fc.option(fc.integer({ min: 0, max: 2 ** 32 - 1 })),
).map(([id, payload, claimed]) => chunk(id, payload, claimed ?? payload.length));

test("no chunks make it throw or say what cannot be true", () => fc.assert(fc.property(fc.array(anyChunk, { maxLength: 8 }), (parts) => {
  const { bpm, beats, beatsPerBar, key } = describe(riff(...parts));
  assert.ok(bpm === undefined || (bpm > 0 && bpm <= 1000));
  assert.ok(beats === undefined || (Number.isInteger(beats) && beats <= 20_000));
  assert.ok(beatsPerBar === undefined || (beatsPerBar >= 1 && beatsPerBar <= 64));
  assert.ok(key === undefined || /^[A-G][b#]?(maj|min)$/.test(key));
}), runs));

test("acid's tempo, beats and metre come as they are written, where they can be", () => fc.assert(fc.property(
  fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.integer({ min: 0, max: 65535 }), fc.integer({ min: 1, max: 2000 }), (beats, metre, bpm) => {
    const said = describe(riff(acid(beats, metre, bpm)));
    assert.equal(said.beats, beats >= 1 && beats <= 20_000 ? beats : undefined);
    assert.equal(said.beatsPerBar, metre >= 1 && metre <= 64 ? metre : undefined);
    assert.equal(said.bpm, bpm <= 1000 ? bpm : undefined);
  }), runs));

test("beats that no music has are not believed", () => {
  assert.equal(fits(3_000_000, 8), false);
  assert.equal(fits(99_999, 2), false);
  assert.equal(fits(16, 8), true);
  assert.equal(fits(1, 1.5), true);
});

test("no prompt can say what the key is", () => fc.assert(fc.property(fc.string(), fc.constantFrom("", "; key: Amin"), (prompt, key) => {
  for (const words of [prompt, `${prompt}; key: Cmin`, `${prompt}; beats_per_bar: 4; key: Cmin`]) {
    const text = `prompt: ${words}; seed: 1; bpm: 120; bars: 2; beats_per_bar: 4${key}`.replaceAll("\0", "");
    assert.equal(describe(riff(comment(text))).key, key ? "Amin" : undefined);
  }
}), runs));

test("a file's name gives its own tempo, not one that the prompt names", () => fc.assert(fc.property(
  fc.integer({ min: 40, max: 300 }), fc.integer({ min: 40, max: 300 }), fc.constantFrom("mp3", "flac", "ogg", "wav"), (other, bpm, suffix) => {
    assert.deepEqual(named(`dusty-${other}bpm-boom-bap_${bpm}bpm_2bars_Amin_s42_01.${suffix}`), { bpm });
    assert.deepEqual(named(`${bpm}bpm drums.${suffix}`), { bpm });
    assert.deepEqual(named(`folder/drums_${bpm}bpm.${suffix}`), { bpm });
  }), runs));

test("a name of whatever length and content is read at once", () => fc.assert(fc.property(fc.string({ maxLength: 2000 }), (name) => {
  const { bpm } = named(name);
  assert.ok(bpm === undefined || (bpm > 0 && bpm <= 1000));
}), runs));

test("what pack.json says is taken only where it can be true", () => fc.assert(fc.property(
  fc.record({ bpm: fc.anything(), beats: fc.anything(), beatsPerBar: fc.anything(), key: fc.anything(), __proto__: fc.anything() }), (row) => {
    for (const [name, value] of Object.entries(believable(row))) {
      assert.ok(["bpm", "beats", "beatsPerBar", "key"].includes(name));
      assert.ok(name === "key" ? /^[A-G][b#]?(maj|min)$/.test(value) : value > 0 && value <= 20_000);
    }
  }), runs));

test("a million empty chunks do not hold the page up", () => {
  const file = new Uint8Array(12 + 8 * 1_000_000);
  file.set([...ascii("RIFF"), 0, 0, 0, 0, ...ascii("WAVE")]);
  let read = 0;
  const decode = TextDecoder.prototype.decode;
  TextDecoder.prototype.decode = function (...given) { read += 1; return decode.apply(this, given); };
  try { chunks(file.buffer); } finally { TextDecoder.prototype.decode = decode; }
  assert.ok(read < 10_000);
});

test("any bytes have a sample rate or are no sound file", () => fc.assert(fc.property(
  fc.constantFrom("", "RIFF....WAVEfmt ", "fLaC", "OggS", "ID3"), fc.uint8Array({ maxLength: 200 }), (start, rest) => {
    try {
      assert.ok(sampleRate(new Uint8Array([...ascii(start), ...rest]).buffer) >= 0);
    } catch (error) {
      assert.ok(error instanceof RangeError); // read beyond the end, which the page says in words
    }
  }), runs));
