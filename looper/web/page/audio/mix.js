// A mixer's arithmetic: which strips are heard, and how loud.

export const LOWEST = -30; // dB; a fader at its end is silent
export const HIGHEST = 6;

/** A fader's gain. */
export const gain = (decibels) => (decibels <= LOWEST ? 0 : 10 ** (decibels / 20));

/**
 * Gains of strips [{on, solo, decibels}]. A solo silences all that have none. No loop has samples over 1, so the gains are
 * brought down to a sum of 1 at most: the mix never clips, and a single loop at 0 dB is the file, bit for bit.
 */
export function levels(strips) {
  const soloed = strips.some(({ solo }) => solo);
  const asked = strips.map(({ on, solo, decibels }) => ((soloed ? solo : on) ? gain(decibels) : 0));
  const sum = asked.reduce((total, one) => total + one, 0);
  return asked.map((one) => one / Math.max(1, sum));
}
