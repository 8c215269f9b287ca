// The way of a request in a producer's words, from what its log has said so far.

const FIRST = "candidates"; // the server's names of its stages, in their order
const OTHERS = "variations";
const LAST = "loops";
const METER = /^[ \t]*([^:\n]*?):?[ \t]*(\d+(?:\.\d+)?)%\|.*?(?:\[([\d:]+)<.*)?$/gm;
const EARLY = 8; // percent; before it a guess of the time left would be a poor one

/** "01:05" or "1:00:05" in seconds. */
const seconds = (clock) => clock.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);

/** What tqdm's lines "stage:  40%|####   | 2/5 [00:02<00:03, 1.2it/s]" say: [{stage, round, share, took}], one a stage and round. */
export function stages(logs = "") {
  const found = [];
  for (const [, stage, percent, took] of logs.matchAll(METER)) {
    const share = Number(percent) / 100;
    const last = found.at(-1);
    const reading = { stage, round: 1, share, took: took ? seconds(took) : 0 };
    if (last?.stage !== stage) found.push(reading);
    else if (share < last.share) found.push({ ...reading, round: last.round + 1 }); // a further round starts its stage again
    else Object.assign(last, reading, { round: last.round });
  }
  return found;
}

/** Where each stage lies in the whole, in percent: the two that draw music take about as long as each other. */
function span(stage, variations) {
  if (stage === LAST) return [92, 100];
  if (variations === 1) return [0, 92];
  return stage === FIRST ? [0, 46] : [46, 92];
}

function words({ stage, round }, variations) {
  if (stage === FIRST) return round === 1 ? "Playing four first takes, to pick the best" : "None held the tempo well enough: playing four more";
  if (stage === OTHERS) {
    const which = variations === 2 ? "variation 2" : `variations 2 to ${variations}`;
    return round === 1 ? `Playing ${which}, on from the end of loop 1` : "Playing again what drifted off the tempo";
  }
  if (stage === LAST) return "Cutting at the bar lines and closing the seams";
  return stage || "Working";
}

/** "about 5 s left", or "about 2 min left". */
export function leftWords(left) {
  if (!Number.isFinite(left) || left < 1) return "";
  const steps = left < 10 ? 1 : 5;
  return left < 90 ? `about ${Math.ceil(left / steps) * steps} s left` : `about ${Math.round(left / 60)} min left`;
}

/** The whole way of a request for so many `variations`: {words, percent, left}; percent never falls, and is undefined before the first line. */
export function journey(logs, variations = 4) {
  const met = stages(logs);
  if (!met.length) return { words: "Waiting for the model…", left: "" };
  const reached = met.map(({ stage, share }) => {
    const [from, to] = span(stage, variations);
    return from + (to - from) * share;
  });
  const percent = Math.round(Math.max(...reached));
  const spent = met.reduce((sum, { took }) => sum + took, 0);
  const now = met.at(-1);
  const left = percent >= EARLY && now.round === 1 ? leftWords((spent * (100 - percent)) / percent) : "";
  return { words: words(now, variations), percent, left };
}

/** What a state says of the way so far: {words, percent, left}; one that waits in line has a place and no percent. */
export function whereabouts({ place, logs, away, resent, continuing } = {}, variations = 4) {
  if (away) return { words: "The server does not answer. Your request is kept, and goes on when it is back…", left: "" };
  if (resent) return { words: "The server is back and knew nothing of this request: it was asked for again", left: "" };
  if (place) return { words: place === 1 ? "Next in line" : `Place ${place} in line`, left: "" };
  if (continuing) return { words: "Playing on from the end of this loop; the model is loaded for it first…", left: "" };
  return journey(logs, variations);
}

/** How sure the server was of each loop's beat, 0..1, from its log: [0.93, undefined, ...] by variation from 1. */
export function confidences(logs = "") {
  const found = [];
  for (const [, number, confidence] of logs.matchAll(/^variation (\d+): .*?confidence (\d(?:\.\d+)?)/gm)) found[Number(number) - 1] = Number(confidence);
  return found;
}
