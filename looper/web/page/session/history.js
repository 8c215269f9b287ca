// The sets that were made, newest first, and their stars: plain values in, plain values out.
// A set is {id, made, values, seed, model, seconds, stars: [index], files: [{bytes, extension}], confidence: [0..1]}.

export const MOST = 30; // sets that are kept; those with stars are kept beyond it

/** `sets` with `set` at their head; the oldest without a star goes where there are too many. */
export function add(sets, set) {
  const all = [set, ...sets.filter(({ id }) => id !== set.id)];
  const excess = all.filter(({ stars }) => !stars.length).slice(MOST);
  return all.filter((one) => !excess.includes(one));
}

/** `sets` with the star of loop `index` of set `id` turned over. */
export function turnStar(sets, id, index) {
  const turned = (stars) => (stars.includes(index) ? stars.filter((one) => one !== index) : [...stars, index].sort((a, b) => a - b));
  return sets.map((set) => (set.id === id ? { ...set, stars: turned(set.stars) } : set));
}

export const remove = (sets, id) => sets.filter((set) => set.id !== id);

/** All starred loops, newest set first: [{set, index}]. */
export const starred = (sets) => sets.flatMap((set) => set.stars.map((index) => ({ set, index })));

/** Whether `set` goes on from a recording, which then is its first file. */
export const isContinued = ({ values }) => Boolean(values.continued);

/** What to ask for to get more like `set`: the same words and settings, the next seed. */
export const moreLikeThis = ({ values, seed }) => ({ ...values, seed: seed + 1 });

/** "124 BPM · 4 loops · seed 7 · 2 starred" */
export function summary({ values, files, seed, stars }) {
  const loops = `${files.length} loop${files.length === 1 ? "" : "s"}`;
  return [values.bpm && `${values.bpm} BPM`, loops, Number.isInteger(seed) && `seed ${seed}`, stars.length && `${stars.length} starred`].filter(Boolean).join(" · ");
}
