// What the page makes of packs and folders that anybody may have made: zips of any bytes, pack.json of any content.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { gather } from "../../../looper/web/page/files/open.js";
import { entries } from "../../../looper/web/page/files/unzip.js";

const runs = { numRuns: Number(process.env.RUNS ?? 300) };

const u16 = (x) => [x & 255, (x >>> 8) & 255];
const u32 = (x) => [...u16(x), ...u16(x >>> 16)];
const utf8 = (text) => [...new TextEncoder().encode(text)];

/** A zip of stored entries [{name, bytes, claimed, packed, method, at}]; the last four may lie. */
function zip(list) {
  const [bodies, directory] = [[], []];
  for (const { name, bytes, claimed = bytes.length, packed = bytes.length, method = 0, at = bodies.length } of list) {
    directory.push(...u32(0x02014b50), ...u16(20), ...u16(20), ...u16(0), ...u16(method), ...u32(0), ...u32(0), ...u32(packed), ...u32(claimed),
      ...u16(utf8(name).length), ...u16(0), ...u16(0), ...u16(0), ...u16(0), ...u32(0), ...u32(at), ...utf8(name));
    bodies.push(...u32(0x04034b50), ...u16(20), ...u16(0), ...u16(method), ...u32(0), ...u32(0), ...u32(packed), ...u32(claimed),
      ...u16(utf8(name).length), ...u16(0), ...utf8(name), ...bytes);
  }
  const end = [...u32(0x06054b50), ...u16(0), ...u16(0), ...u16(list.length), ...u16(list.length), ...u32(directory.length), ...u32(bodies.length), ...u16(0)];
  return new Uint8Array([...bodies, ...directory, ...end]).buffer;
}

const file = (path, bytes) => ({ name: path.split("/").pop(), path, size: bytes.byteLength, read: async () => bytes });
const size = fc.oneof(fc.nat(64), fc.constantFrom(2 ** 31, 2 ** 32 - 1, 65_535));
const maybe = (arbitrary) => fc.option(arbitrary, { nil: undefined });
const part = fc.constantFrom("a.wav", "b.mp3", "pack.json", "..", ".", "", "__MACOSX", ".hidden", "C:", "folder", "constructor", "x.zip");
const entry = fc.record({
  name: fc.oneof(fc.array(part, { minLength: 1, maxLength: 10 }).map((parts) => parts.join("/")), fc.string()),
  bytes: fc.array(fc.nat(255), { maxLength: 40 }), claimed: maybe(size), packed: maybe(size), method: fc.constantFrom(0, 8, 12, 99), at: maybe(size),
});

/** What `work` gives, or its error, which must be one that the page shows. */
async function orWords(work) {
  try {
    return await work();
  } catch (error) {
    assert.ok(error instanceof Error && error.message.length > 0);
    return null;
  }
}

test("a zip that lies about its entries gives no more than it holds, or words", () => fc.assert(fc.asyncProperty(fc.array(entry, { maxLength: 5 }), async (list) => {
  const buffer = zip(list);
  for (const one of (await orWords(() => entries(buffer))) ?? []) {
    if (one.size > 2 ** 20) continue; // gather() refuses these unread
    const bytes = await orWords(one.read);
    assert.ok(bytes === null || bytes.byteLength <= Math.max(one.size, buffer.byteLength));
  }
}), runs));

test("a zip with any bytes changed is read or refused, and at once", () => fc.assert(fc.asyncProperty(
  fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { minLength: 1, maxLength: 8 }), fc.nat(220), async (flips, end) => {
    const bytes = new Uint8Array(zip([{ name: "p/a.wav", bytes: [1, 2, 3] }, { name: "p/pack.json", bytes: utf8("{}") }]));
    for (const [place, value] of flips) bytes[place % bytes.length] = value;
    const name = "x.zip";
    const told = await orWords(() => gather([{ ...file(name, bytes.slice(0, end + 1).buffer) }]));
    assert.ok(told === null || told.loops.length <= 2);
  }), runs));

test("loops of a pack are found whatever stands beside them, and no name leads elsewhere", () => fc.assert(fc.asyncProperty(fc.array(entry, { maxLength: 6 }), async (list) => {
  const told = await orWords(() => gather([file("pack.zip", zip(list))]));
  for (const { name } of told?.loops ?? []) {
    assert.match(name, /\.(wav|mp3|flac|ogg)$/i);
    assert.ok(!name.split("/").some((step) => step === ".." || step === "" || step.startsWith(".")));
  }
}), runs));

test("a pack.json of any content leaves its loops as they are", () => fc.assert(fc.asyncProperty(
  fc.oneof(fc.json().map(utf8), fc.array(fc.nat(255), { maxLength: 60 })), async (bytes) => {
    const told = await gather([file("p/a.wav", new ArrayBuffer(8)), file("p/pack.json", new Uint8Array(bytes).buffer)]);
    assert.deepEqual(told.loops.map(({ name }) => name), ["a.wav"]);
  }), runs));
