// What an empty page offers: words to try, and a set of loops to hear at once. The loops are the demonstration model's.

export const PROMPTS = [
  { prompt: "house, 909 drums, sub bass, bright", bpm: 124 },
  { prompt: "boom bap hip hop, dusty acoustic drums, dark", bpm: 93.7 },
  { prompt: "drum and bass, 808 drums, saw bass, busy", bpm: 140 },
  { prompt: "techno, 909 drums, minimal, dark", bpm: 128 },
];

const SET = "techno-909-drums-saw-bass-dark_128bpm_2bars_s3";

/** The set to hear: [{name, url, hints}]. */
export const LOOPS = [1, 2, 3].map((k) => {
  const name = `${SET}_0${k}.flac`;
  return { name, url: `examples/${name}`, hints: { bpm: 128, beats: 8, beatsPerBar: 4 } };
});
