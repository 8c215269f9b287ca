// What a loop's file says about itself: tempo, metre and bars from RIFF chunks or, failing that, its name.

const text = (view, at, length) => new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at, length));
const untilZero = (string) => string.split("\0")[0].trim();

/** Chunks of a RIFF/WAVE file as {id: DataView}, lists as LISTINFO and so on; null when it is something else. */
export function chunks(buffer) {
  const view = new DataView(buffer);
  if (view.byteLength < 12 || text(view, 0, 4) !== "RIFF" || text(view, 8, 4) !== "WAVE") return null;
  const found = {};
  for (let at = 12; at + 8 <= view.byteLength;) {
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
  for (let at = 4; list && at + 8 <= list.byteLength;) {
    const size = Math.min(list.getUint32(at + 4, true), list.byteLength - at - 8);
    tags[text(list, at, 4)] = untilZero(text(list, at + 8, size));
    at += 8 + size + (size & 1);
  }
  return tags;
}

/** {bpm, beats, beatsPerBar, start, end, title, comment, key}; only what the file says. Loop points are in samples, end exclusive. */
export function describe(buffer, name = "") {
  const said = {};
  const named = /(\d+(?:\.\d+)?)bpm/.exec(name);
  if (named) said.bpm = Number(named[1]);
  const { acid, smpl, LISTINFO } = chunks(buffer) ?? {};
  if (acid?.byteLength >= 24 && acid.getFloat32(20, true) > 0) {
    said.bpm = Math.round(acid.getFloat32(20, true) * 1e4) / 1e4;
    said.beats = acid.getUint32(12, true) || undefined;
    said.beatsPerBar = acid.getUint16(18, true) || undefined;
  }
  if (smpl?.byteLength >= 60 && smpl.getUint32(28, true) > 0) {
    said.start = smpl.getUint32(44, true);
    said.end = smpl.getUint32(48, true) + 1;
  }
  const { INAM: title, ICMT: comment } = info(LISTINFO);
  const key = [...(comment ?? "").matchAll(/(?:^|; )key: ([^;]+)/g)].pop()?.[1]; // the last: a prompt may say "key" too
  return { ...said, title, comment, key };
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
