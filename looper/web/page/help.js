// What the form says of its fields, for somebody who makes music. A field that is not here has the API's own words.

export const HELP = {
  prompt: { label: "What should it sound like?", help: "Genre, instruments, mood. Leave the tempo to the field below." },
  bpm: { label: "Tempo (BPM)", help: "Kept exactly." },
  variations: { label: "Variations", help: "Each runs into every other." },
  max_duration: { label: "Longest loop (s)", help: "As many bars as fit, in powers of two." },
  model_version: { label: "Model", help: "" },
  output_format: { label: "File format", help: "WAV is exact, MP3 small." },
  seed: { label: "Seed", help: "The same seed makes the same loops." },
  temperature: { label: "Temperature", help: "Below 1 plays safer, above 1 wilder." },
  classifier_free_guidance: { label: "Follow the words", help: "Higher keeps closer to your words, and varies less. 3 is usual." },
  top_k: { label: "Choices (top k)", help: "At each step, draw from so many of the likeliest sounds. Fewer is tamer." },
  top_p: { label: "Share of choices (top p)", help: "Above 0: draw from the likeliest sounds that make up this share, instead of top k." },
};

/** What plays under each name of a model, before anything is asked for: one sentence or two. */
export function modelWords(name, facts) {
  if (!facts) return "";
  if (!facts.here) return `Not on this server: ${facts.remedy}`;
  const played = facts.model === name ? `Plays MusicGen ${name}.` : `Plays “${facts.model}”${facts.demo ? ", a small demonstration of drums and bass, not MusicGen" : ""}.`;
  return `${played} ${licenceWords(facts.licence)}`;
}

function licenceWords(licence) {
  if (!licence) return "Its licence is its maker’s.";
  if (/NC/.test(licence)) return `Licence of the model: ${licence}, not for commercial use.`;
  return `Licence of the model: ${licence}.`;
}
