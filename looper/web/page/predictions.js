// One prediction: start it, follow its events, cancel it; every failure as a sentence.

import { answers, back, good, ready } from "./server.js";

const plain = (error) => (error ?? "The model failed without saying why: see the server's log.")
  .replace(/^((Async p|P)rediction failed: )+/, "").replace(/^(?:Value|Runtime)Error: /, "");

const put = (id, input) => good(`predictions/${id}`, {
  method: "PUT",
  headers: { "content-type": "application/json", prefer: "respond-async" },
  body: JSON.stringify({ input }),
});

/** The events of prediction `id` until it is done or the connection ends: {state} or {heard}, whether there were any. */
function listen(id, tell) {
  return new Promise((resolve) => {
    const events = new EventSource(`predictions/${id}/events`);
    let heard = false;
    events.onmessage = ({ data }) => {
      heard = true;
      const state = JSON.parse(data);
      tell(state);
      if (!["succeeded", "failed", "canceled"].includes(state.status)) return;
      events.close();
      resolve({ state });
    };
    events.onerror = () => {
      events.close();
      resolve({ heard });
    };
  });
}

/**
 * Follow prediction `id` to its end; resolves to {output, metrics, logs}, or null when it was canceled or `signal` gave up.
 * While the server is away it waits; of one that was started anew `input` is asked for again, once. What goes on from a
 * recording is not: that is not in `input`.
 */
export async function follow(id, input, tell, signal) {
  for (let asked = !input.continued; !signal?.aborted;) {
    const { state, heard } = await listen(id, tell);
    if (state?.status === "failed") throw new Error(plain(state.error));
    if (state) return state.status === "canceled" ? null : state;
    if (heard) continue; // the connection was cut: whether the server is there, the next look shows
    if (!(await answers())) {
      tell({ away: true });
      await back(signal);
    } else if (asked) {
      asked = false;
      tell({ resent: true });
      await ready();
      await put(id, input);
    } else throw new Error("The server was started anew and has forgotten this request. The form is as you left it.");
  }
  return null;
}

const newId = () => `web-${crypto.getRandomValues(new Uint32Array(3)).join("-")}`;

/** Ask for loops; resolves to the prediction's id. */
export async function start(input) {
  const id = newId();
  await put(id, input);
  localStorage.setItem("prediction", id); // a page that is opened again finds its own, and nobody else's
  return id;
}

/** The id of the prediction that this browser started last. */
export const mine = () => localStorage.getItem("prediction") ?? "";

export const cancel = (id, values) => good(`${values.continued ? "continuations" : "predictions"}/${id}/cancel`, { method: "POST" });

/** Ask for variations that go on from a recording, a way of this page's server alone; resolves to an id to follow. */
export async function continueFrom(bytes, values) {
  const id = newId();
  await good(`continuations/${id}?${new URLSearchParams(values)}`, { method: "POST", body: bytes });
  localStorage.setItem("prediction", id);
  return id;
}

/** What was asked for, as it stands in a URL or in the server's memory, with its numbers. */
export const typed = (values) => Object.fromEntries(Object.entries(values).map(([name, value]) =>
  [name, ["bpm", "variations", "seed"].includes(name) ? Number(value) : value]));

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
