// Integrated loudness after ITU-R BS.1770-4, of a loop as it is heard when it repeats.

const BLOCK = 0.4; // seconds; a new one begins every quarter of it
const ABSOLUTE_GATE = -70; // LUFS
const RELATIVE_GATE = -10; // LU below the mean of what passed the first gate
const lufs = (power) => -0.691 + 10 * Math.log10(power);

/** The K-weighting at `rate` Hz: a high shelf, then a high pass, as [b0, b1, b2, a1, a2]; constants from libebur128. */
function weighting(rate) {
  const shelf = () => {
    const [k, q] = [Math.tan((Math.PI * 1681.974450955533) / rate), 0.7071752369554196];
    const high = 10 ** (3.999843853973347 / 20);
    const band = high ** 0.4996667741545416;
    const a0 = 1 + k / q + k * k;
    return [high + (band * k) / q + k * k, 2 * (k * k - high), high - (band * k) / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k].map((c) => c / a0);
  };
  const pass = () => {
    const [k, q] = [Math.tan((Math.PI * 38.13547087602444) / rate), 0.5003270373238773];
    const a0 = 1 + k / q + k * k;
    return [1, -2, 1, (2 * (k * k - 1)) / a0, (1 - k / q + k * k) / a0];
  };
  return [shelf(), pass()];
}

/** Running sums of the squared, weighted samples of the second of two rounds, added to `sums`. */
function addPower(samples, rate, sums) {
  const [[b0, b1, b2, a1, a2], [c0, c1, c2, d1, d2]] = weighting(rate);
  let [s1, s2, t1, t2, total] = [0, 0, 0, 0, 0];
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < samples.length; i++) {
      const x = samples[i];
      const y = b0 * x + s1;
      s1 = b1 * x - a1 * y + s2;
      s2 = b2 * x - a2 * y;
      const z = c0 * y + t1;
      t1 = c1 * y - d1 * z + t2;
      t2 = c2 * y - d2 * z;
      if (round) sums[i + 1] += total += z * z;
    }
  }
}

/** LUFS of an AudioBuffer that loops; -Infinity for silence. */
export function loudness(buffer) {
  const { length, sampleRate: rate, numberOfChannels } = buffer;
  const sums = new Float64Array(length + 1);
  for (let c = 0; c < Math.min(2, numberOfChannels); c++) addPower(buffer.getChannelData(c), rate, sums);
  const block = Math.min(length, Math.round(BLOCK * rate));
  const step = Math.max(1, Math.round(block / 4));
  const powers = [];
  for (let at = 0; at < length; at += step) {
    const end = at + block;
    powers.push((end <= length ? sums[end] - sums[at] : sums[length] - sums[at] + sums[end - length]) / block);
  }
  const mean = (list) => list.reduce((sum, power) => sum + power, 0) / list.length;
  const loud = powers.filter((power) => lufs(power) > ABSOLUTE_GATE);
  if (!loud.length) return -Infinity;
  const gate = lufs(mean(loud)) + RELATIVE_GATE;
  return lufs(mean(loud.filter((power) => lufs(power) > gate)));
}
