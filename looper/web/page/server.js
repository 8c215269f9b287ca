// Is the server there, and is its model ready?

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const AGAIN = 1000; // ms between two looks

export const AWAY = "The server does not answer: is looper serve still running?";

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

/** Fetch what must be there; a refusal is an error in the server's words, no answer one in ours. */
export async function good(path, how) {
  const response = await fetch(path, how).catch(() => { throw Object.assign(new Error(AWAY), { away: true }); });
  if (!response.ok) throw new Error(await complaint(response));
  return response;
}

const answers = () => fetch("session.json").then(({ ok }) => ok, () => false);
export { answers };

/** Wait until the server answers again, or `signal` says to give up. */
export async function back(signal) {
  while (!signal?.aborted && !(await answers())) await pause(AGAIN);
}

/** Wait until the model can be asked; `tell` hears what it waits for. */
export async function ready(tell = () => {}) {
  for (;;) {
    const { status, setup, error } = await (await fetch("health-check").catch(() => { throw Object.assign(new Error(AWAY), { away: true }); })).json();
    if (["READY", "BUSY"].includes(status)) return;
    if (error) throw new Error(error);
    if (status !== "STARTING") {
      const why = (setup?.logs ?? "").trim().split("\n").slice(-6).join("\n").replace(/^.*setup failed: (?:\w+: )?/gim, "");
      throw new Error(`The model could not be loaded: ${why || "see the server's log."}`);
    }
    tell("Loading the model…");
    await pause(AGAIN);
  }
}
