// From a file's bytes to a loop that can be played, drawn and named.

import { loudness } from "./loudness.js";
import { describe, fits, named, sampleRate } from "./wav.js";

/**
 * Decode {name, bytes, hints} to {name, bytes, buffer, bpm, beats, beatsPerBar, bars, lufs, title, comment, key}.
 * At the file's own rate every sample stays as it is; loops that play together need one `rate`.
 */
export async function decode(file, rate = sampleRate(file.bytes)) {
  const said = { ...named(file.name), ...file.hints, ...defined(describe(file.bytes)) }; // the file itself knows best
  const scale = rate / sampleRate(file.bytes);
  // an offline context keeps the sample count, and needs no click
  const whole = await new OfflineAudioContext(1, 1, rate).decodeAudioData(file.bytes.slice(0));
  const end = said.end ? Math.round(said.end * scale) : whole.length;
  const buffer = between(whole, Math.round((said.start ?? 0) * scale), Math.min(end, whole.length));
  const seconds = buffer.length / rate;
  const counted = said.bpm ? Math.max(1, Math.round((seconds * said.bpm) / 60)) : undefined;
  const beats = said.beats && fits(said.beats, seconds) ? said.beats : counted;
  const beatsPerBar = said.beatsPerBar ?? 4;
  const bars = beats >= beatsPerBar && beats % beatsPerBar === 0 ? beats / beatsPerBar : 1;
  return { ...said, name: file.name, bytes: file.bytes, buffer, seconds, beats, beatsPerBar, bars, lufs: loudness(buffer) };
}

const defined = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

/** `buffer` from sample `start` to `end`, so that the loop is the whole buffer and wraps on exact samples. */
function between(buffer, start, end) {
  if (start >= end || (start === 0 && end === buffer.length)) return buffer;
  const { numberOfChannels, sampleRate } = buffer;
  const part = new AudioBuffer({ length: end - start, numberOfChannels, sampleRate });
  for (let c = 0; c < numberOfChannels; c++) part.copyToChannel(buffer.getChannelData(c).subarray(start, end), c);
  return part;
}

const round = (x) => x.toFixed(1);

/** Largest sample of the loop's first channel, never quite 0. */
export const peak = ({ buffer }) => buffer.getChannelData(0).reduce((most, x) => Math.max(most, Math.abs(x)), 1e-3);

/** Outline of the loop as an SVG path in a 1000 x 100 box of height `full`: the extremes of `columns` slices. */
export function outline({ buffer }, full = 1, columns = 400) {
  const samples = buffer.getChannelData(0);
  const [over, under] = [[], []];
  for (let i = 0; i < columns; i++) {
    let [low, high] = [0, 0];
    const end = Math.floor(((i + 1) * samples.length) / columns);
    for (let k = Math.floor((i * samples.length) / columns); k < end; k++) {
      if (samples[k] < low) low = samples[k];
      else if (samples[k] > high) high = samples[k];
    }
    const x = round(((i + 0.5) * 1000) / columns);
    over.push(`${x} ${round(49.5 - (48 * high) / full)}`);
    under.unshift(`${x} ${round(50.5 - (48 * low) / full)}`);
  }
  return `M0 50L${over.join("L")}L1000 50L${under.join("L")}Z`;
}

/** "4 bars", or "2 beats" where no whole bar fits. */
export function count({ beats, beatsPerBar, bars }) {
  const [n, unit] = beats < beatsPerBar ? [beats, "beat"] : [bars, "bar"];
  return `${n} ${unit}${n === 1 ? "" : "s"}`;
}

/** Name of a generated loop, as the command line gives it: sorts well, says it all, has no character that a file system refuses. */
export function fileName({ prompt = "loop", seed }, loop, number, extension) {
  const ascii = prompt.slice(0, 1000).normalize("NFKD").replace(/[^\0-\x7f]/g, "").toLowerCase();
  const words = (ascii.match(/[a-z0-9]+/g) ?? ["loop"]).join("-");
  const slug = words.length <= 40 ? words : words.slice(0, 41).replace(/-[^-]*$/, "").slice(0, 40);
  const length = count(loop).replace(" ", "");
  const parts = [slug, `${loop.bpm ?? 0}bpm`, length, loop.key, seed >= 0 && `s${seed}`, String(number).padStart(2, "0")];
  return `${parts.filter(Boolean).join("_")}.${extension}`;
}

/** Names of which no two are the same: the second of a kind gets a number. */
export function distinct(names) {
  const met = new Map();
  return names.map((name) => {
    met.set(name, (met.get(name) ?? 0) + 1);
    return met.get(name) === 1 ? name : name.replace(/(\.\w+)?$/, `_${met.get(name)}$1`);
  });
}
