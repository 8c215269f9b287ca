// One prediction: start it, follow its events, cancel it; every failure as a sentence.

/** The server's complaint as words for the user. */
export async function complaint(response) {
  const body = await response.json().catch(() => ({}));
  if (response.status === 409) return "The model is busy with another request. Wait for it, or cancel it, and try again.";
  if (response.status === 503 && !body.error) return "The model is not ready yet. Try again in a moment.";
  if (Array.isArray(body.detail)) {
    return body.detail.map(({ loc, msg }) => `${(loc ?? []).filter((part) => !["body", "input"].includes(part)).join(".")}: ${msg}`.replace(/^: /, "")).join("\n");
  }
  return body.error ?? `The server answered ${response.status} ${response.statusText}.`;
}

const plain = (error) => (error ?? "The model failed without saying why: see the server's log.")
  .replace(/^((Async p|P)rediction failed: )+/, "").replace(/^(?:Value|Runtime)Error: /, "");

/** What the logs last said of progress, such as tqdm's "stage:  40%|####   | 2/5 [00:02<00:03, 1.2it/s]": {stage, percent, done, total, left, rate}. */
export function progress(logs = "") {
  const [, stage, percent, rest] = [...logs.matchAll(/^\s*(?:(.*?)[:\s]+)?(\d+(?:\.\d+)?)\s*%(.*)$/gm)].pop() ?? [];
  if (percent === undefined) return {};
  const [, done, total] = /\b(\d+)\/(\d+)\b/.exec(rest) ?? [];
  const [, left] = /<([\d:]+)/.exec(rest) ?? [];
  const [, rate] = /([\d.]+)it\/s/.exec(rest) ?? [];
  return { stage: stage || "working", percent: Number(percent), done, total, left, rate };
}

/** What a state says of the way so far, for the reader: {place} of one that waits in line, or progress. */
export function whereabouts({ place, logs } = {}) {
  return place ? { stage: place === 1 ? "Next in line" : `Place ${place} in line` } : { stage: "Waiting for the model…", ...progress(logs) };
}

/** Follow prediction `id` to its end; resolves to {output, metrics, logs}, or null when it was canceled. */
export function follow(id, onState) {
  return new Promise((resolve, reject) => {
    const events = new EventSource(`predictions/${id}/events`);
    events.onmessage = ({ data }) => {
      const state = JSON.parse(data);
      onState(state);
      if (!["succeeded", "failed", "canceled"].includes(state.status)) return;
      events.close();
      if (state.status === "failed") reject(new Error(plain(state.error)));
      else resolve(state.status === "canceled" ? null : state);
    };
    events.onerror = () => { // a dropped connection is taken up again by itself; a closed one is not
      if (events.readyState === EventSource.CLOSED) reject(new Error("The server stopped, or has forgotten this request."));
    };
  });
}

export async function start(input) {
  const id = `web-${crypto.getRandomValues(new Uint32Array(3)).join("-")}`;
  const headers = { "content-type": "application/json", prefer: "respond-async" };
  const response = await fetch(`predictions/${id}`, { method: "PUT", headers, body: JSON.stringify({ input }) })
    .catch(() => { throw new Error("The server does not answer: is looper serve still running?"); });
  if (!response.ok) throw new Error(await complaint(response));
  localStorage.setItem("prediction", id); // a page that is opened again finds its own, and nobody else's
  return id;
}

/** The id of the prediction that this browser started last. */
export const mine = () => localStorage.getItem("prediction") ?? "";

export const cancel = (id) => fetch(`predictions/${id}/cancel`, { method: "POST" });

/** The seed that was used, wherever the server tells it. */
export function usedSeed({ metrics, logs }, asked) {
  const seed = metrics?.seed ?? /\bseed\b\W{0,3}(\d+)/i.exec(logs ?? "")?.[1] ?? asked;
  return Number(seed);
}

/** Files of an output object, in order: [{bytes, extension}]. */
export function files(output) {
  const urls = Object.entries(output ?? {}).filter(([, url]) => typeof url === "string").sort().map(([, url]) => url);
  return Promise.all(urls.map(async (url) => {
    const response = await fetch(url);
    const kind = response.headers.get("content-type") ?? "";
    return { bytes: await response.arrayBuffer(), extension: /mpeg|mp3/.test(kind) ? "mp3" : "wav" };
  }));
}
