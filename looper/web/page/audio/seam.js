// How far the wrap of a loop stands out of what the loop itself does: the server's own measure (looper/loops/clicks.py).

const ORDER = 32; // taps of the linear prediction
const REACH = 24; // samples around the wrap that are looked at
const USUAL = 0.999; // quantile of the loop's own residual
export const CLICK = 1.5; // above it a wrap is heard

/** The loop with its own end before it and its beginning after it: sample i is at i + ORDER. */
function around(x) {
  const whole = new Float64Array(ORDER + x.length + REACH);
  whole.set(x.subarray(x.length - ORDER));
  whole.set(x, ORDER);
  whole.set(x.subarray(0, REACH), ORDER + x.length);
  return whole;
}

/** Taps of the AR model of a loop of `length` samples, by the autocorrelation method and Levinson's recursion. */
function predictor(whole, length) {
  const lags = new Float64Array(ORDER + 1);
  for (let lag = 0; lag <= ORDER; lag++) {
    let sum = 0;
    for (let i = ORDER; i < ORDER + length; i++) sum += whole[i] * whole[i - lag];
    lags[lag] = sum;
  }
  const taps = new Float64Array(ORDER + 1);
  taps[0] = 1;
  if (lags[0] <= 1e-12 * length) return taps;
  let error = (lags[0] *= 1 + 1e-7); // white noise 70 dB down keeps the equations solvable for pure tones
  for (let m = 1; m <= ORDER; m++) {
    let sum = lags[m];
    for (let k = 1; k < m; k++) sum += taps[k] * lags[m - k];
    const reflection = -sum / error;
    const before = taps.slice();
    for (let k = 1; k < m; k++) taps[k] = before[k] + reflection * before[m - k];
    taps[m] = reflection;
    error *= 1 - reflection * reflection;
  }
  return taps;
}

/** |What the prediction leaves| of the samples `from` to `to`. */
function residual(whole, taps, from, to) {
  const left = new Float32Array(to - from);
  for (let i = from; i < to; i++) {
    let sum = 0;
    for (let k = 0; k <= ORDER; k++) sum += taps[k] * whole[ORDER + i - k];
    left[i - from] = Math.abs(sum);
  }
  return left;
}

/** The click ratio of an AudioBuffer that loops; above `CLICK` it is heard, 0 for silence. */
export function clickRatio(buffer) {
  let worst = 0;
  for (let c = 0; c < buffer.numberOfChannels; c++) {
    const x = buffer.getChannelData(c);
    const { length } = x;
    if (length < 256) return 0;
    const whole = around(x);
    const taps = predictor(whole, length);
    const ordered = residual(whole, taps, 0, length).sort();
    const usual = Math.max(ordered[Math.floor(USUAL * (length - 1))], 1e-6);
    worst = Math.max(worst, Math.max(...residual(whole, taps, length - REACH, length + REACH)) / usual);
  }
  return worst;
}
