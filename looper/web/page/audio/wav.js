// What a loop's file says about itself: tempo, metre and bars from RIFF chunks, and what its name says. Anybody may
// have written either: what cannot be true of music is passed over.

const text = (view, at, length) => new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at, length));
const MOST_CHUNKS = 1000;
const KEY = /^[A-G][b#]?(?:maj|min)$/;
const positive = (most) => (x) => Number.isFinite(x) && x > 0 && x <= most;
const count = (most) => (x) => Number.isInteger(x) && x > 0 && x <= most;

/** What may be believed of each fact, whoever says it. */
const CAN_BE = { bpm: positive(1000), beats: count(20_000), beatsPerBar: count(64), key: (word) => typeof word === "string" && KEY.test(word) };

/** Those of `facts` {bpm, beats, beatsPerBar, key} that can be true. */
export const believable = (facts) =>
  Object.fromEntries(Object.entries(CAN_BE).filter(([name, can]) => can(facts[name])).map(([name]) => [name, facts[name]]));

/** Whether so many beats can be in so many seconds: 10 to 1000 a minute. */
export const fits = (beats, seconds) => beats * 60 >= 10 * seconds && beats * 60 <= 1000 * seconds;

const untilZero = (string) => string.split("\0")[0].trim();

/** Chunks of a RIFF/WAVE file as {id: DataView}, lists as LISTINFO and so on; null when it is something else. */
export function chunks(buffer) {
  const view = new DataView(buffer);
  if (view.byteLength < 12 || text(view, 0, 4) !== "RIFF" || text(view, 8, 4) !== "WAVE") return null;
  const found = {};
  for (let at = 12, n = 0; at + 8 <= view.byteLength && n < MOST_CHUNKS; n++) {
    const size = Math.min(view.getUint32(at + 4, true), view.byteLength - at - 8);
    const id = text(view, at, 4);
    const kind = id === "LIST" && size >= 4 ? text(view, at + 8, 4) : ""; // a file may have several lists
    found[id + kind] = new DataView(buffer, at + 8, size);
    at += 8 + size + (size & 1);
  }
  return found;
}

function info(list) {
  const tags = {};
  for (let at = 4, n = 0; list && at + 8 <= list.byteLength && n < MOST_CHUNKS; n++) {
    const size = Math.min(list.getUint32(at + 4, true), list.byteLength - at - 8);
    tags[text(list, at, 4)] = untilZero(text(list, at + 8, size));
    at += 8 + size + (size & 1);
  }
  return tags;
}

/** {bpm} from a file's name: what stands between underscores as we write it, before any tempo in words of the prompt. */
export function named(name) {
  const ours = [...name.matchAll(/_(\d+(?:\.\d+)?)bpm(?=[_.]|$)/g)].pop();
  const [, bpm] = ours ?? /(?:^|[^\d.])(\d+(?:\.\d+)?)bpm/i.exec(name) ?? [];
  return believable({ bpm: Number(bpm) });
}

/** {bpm, beats, beatsPerBar, start, end, title, comment, key}; only what the file holds. Loop points are in samples, end exclusive. */
export function describe(buffer) {
  const said = {};
  const { acid, smpl, LISTINFO } = chunks(buffer) ?? {};
  if (acid?.byteLength >= 24 && acid.getFloat32(20, true) > 0) {
    said.bpm = Math.round(acid.getFloat32(20, true) * 1e4) / 1e4;
    said.beats = acid.getUint32(12, true);
    said.beatsPerBar = acid.getUint16(18, true);
  }
  if (smpl?.byteLength >= 60 && smpl.getUint32(28, true) > 0) {
    said.start = smpl.getUint32(44, true);
    said.end = smpl.getUint32(48, true) + 1;
  }
  const { INAM: title, ICMT: comment } = info(LISTINFO);
  // where we write it, at the very end: a prompt stands first, and may say "key" too
  const key = /; beats_per_bar: \d+; key: (\w#?\w+)$/.exec(comment ?? "")?.[1];
  const { start, end } = said;
  return { ...believable({ ...said, key }), start, end, title, comment };
}

/** Sample rate that a WAV, FLAC, Ogg or MP3 file was made at, so that it is decoded without resampling. */
export function sampleRate(buffer) {
  const view = new DataView(buffer);
  const wav = chunks(buffer);
  if (wav?.["fmt "]) return wav["fmt "].getUint32(4, true);
  const magic = view.byteLength > 48 ? text(view, 0, 4) : "";
  if (magic === "fLaC") return view.getUint32(18) >>> 12;
  if (magic === "OggS") return text(view, 28, 8) === "OpusHead" ? 48000 : view.getUint32(40, true);
  let at = 0;
  if (magic.startsWith("ID3")) at = 10 + [6, 7, 8, 9].reduce((sum, i) => sum * 128 + view.getUint8(i), 0);
  for (; at + 4 <= view.byteLength; at++) {
    const head = view.getUint32(at);
    const [version, rate] = [(head >>> 19) & 3, (head >>> 10) & 3];
    if (head >>> 21 === 0x7ff && version !== 1 && rate !== 3) return [44100, 48000, 32000][rate] >> [2, 0, 1, 0][version];
  }
  return 44100;
}
