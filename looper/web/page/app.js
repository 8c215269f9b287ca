// Boot: learn from the server what there is, then wire the form to predictions or show the folder's loops.

import { build, inputs } from "./form.js";
import { showLength } from "./length.js";
import { fileName } from "./audio/loop.js";
import { believable } from "./audio/wav.js";
import { dropped, gather, picked } from "./files/open.js";
import { nameFiles, present } from "./player.js";
import { cancel, complaint, files, follow, mine, start, usedSeed, whereabouts } from "./predictions.js";

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const get = async (path) => (await fetch(path)).json();
const good = async (path) => {
  const response = await fetch(path);
  if (!response.ok) throw new Error(await complaint(response));
  return response;
};
const fromHash = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
let form;

function fail(error) {
  $("error").textContent = error?.message ?? "";
  $("error").hidden = !error;
}

function showProgress(state) {
  const { stage, percent, done, total, left, rate } = whereabouts(state);
  const decoding = stage !== "loops"; // the last stage counts loops, those before it decode steps
  $("stage").textContent = [stage, percent !== undefined && `${percent} %`, total && `${done} of ${total}`,
    rate && decoding && `${Math.round(rate)} steps/s`, left && `${left} left`].filter(Boolean).join(" · ");
  if (percent === undefined) $("bar").removeAttribute("value");
  else $("bar").value = percent;
  if ($("live").textContent !== stage) $("live").textContent = stage; // a screen reader hears stages, not percents
}

/** Follow prediction `id` on the page, whoever started it. */
async function attend(id, values) {
  fail(null);
  showProgress();
  $("progress").hidden = false;
  $("progress").scrollIntoView({ block: "nearest" });
  $("make").disabled = true;
  $("cancel").onclick = () => { $("cancel").disabled = true; cancel(id).catch(fail); };
  try {
    const done = await follow(id, showProgress);
    if (done) await deliver(done, values);
    else $("live").textContent = "Canceled";
  } catch (error) {
    fail(error);
  }
  $("progress").hidden = true;
  $("make").disabled = $("cancel").disabled = false;
}

async function deliver(done, values = {}) {
  const seed = usedSeed(done, values.seed);
  const found = await files(done.output);
  const hints = values.bpm ? { bpm: values.bpm } : {};
  const loops = await present(found.map(({ bytes }, i) => ({ name: `variation ${i + 1}`, label: `Variation ${i + 1}`, bytes, hints })), "loops");
  $("player-title").textContent = values.prompt || "Loops";
  $("share").hidden = false;
  nameFiles((loop, i) => fileName({ ...values, seed }, loop, i + 1, found[i].extension));
  const { predict_time: seconds, model } = done.metrics ?? {};
  $("health").textContent = [`${loops.length} made`, model && `by ${model}`, seconds && `in ${seconds.toFixed(1)} s`, seed >= 0 && `from seed ${seed}`].filter(Boolean).join(" ");
  if (loops.length) history.replaceState(null, "", form.hash({ ...values, ...(Number.isInteger(seed) && { seed }) }));
}

async function ready() {
  for (;;) {
    const { status, setup, error } = await get("health-check").catch(() => ({ error: "The server does not answer." }));
    if (["READY", "BUSY"].includes(status)) break;
    if (error) throw new Error(error);
    if (status !== "STARTING") {
      const why = (setup?.logs ?? "").trim().split("\n").slice(-6).join("\n").replace(/^.*setup failed: (?:\w+: )?/gim, "");
      throw new Error(`The model could not be loaded: ${why || "see the server's log."}`);
    }
    $("health").textContent = "Loading the model…";
    await pause(1000);
  }
  $("health").textContent = "Ready";
}

async function makeForm() {
  form = build($("form"), inputs(await get("openapi.json")));
  showLength($("form"));
  form.write(fromHash());
  addEventListener("hashchange", () => form.write(fromHash()));
  $("ask").hidden = false;
  $("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = form.read();
    fail(null);
    $("make").disabled = true;
    const id = await start(values).catch((error) => { fail(error); $("make").disabled = false; });
    if (id) await attend(id, values);
  });
}

/** Show loops of a folder or pack, [{name, read()}], with what its pack.json says. */
async function openSet({ name, loops, pack }) {
  const rows = Array.isArray(pack?.loops) ? pack.loops : [];
  const said = Object.fromEntries(rows.filter(Boolean).map((entry) => [entry.file ?? entry.name, believable(entry)]));
  const load = async ({ name: file, read }) => ({ name: file, hints: said[file], bytes: await read() });
  await present(await Promise.all(loops.map(load)), name.replace(/\.zip$/i, ""));
  document.title = `${name} – musicgen-looper`;
  $("player-title").textContent = pack?.title ?? pack?.prompt ?? name;
}

async function openLibrary({ name, loops, pack, note, packs, open }) {
  offer(packs, open);
  if (!loops.length) $("empty").textContent = note;
  const remote = ({ name: file, url }) => ({ name: file, read: async () => (await good(url)).arrayBuffer() });
  await openSet({ name, loops: loops.map(remote), pack });
  if (loops.length && note) fail(new Error(note));
}

/** Let one of several packs be chosen; each has an address of its own. */
function offer(packs, open) {
  $("shelf").hidden = !packs.length;
  $("pack").replaceChildren(...packs.map((name) => new Option(name, name, false, name === open)));
  $("pack").onchange = () => { location.search = new URLSearchParams({ pack: $("pack").value }); };
}

/** Open files of this computer; `list` may be a promise. */
async function openLocal(list) {
  fail(null);
  try {
    const files = await list;
    if (!files.length) return;
    await openSet(await gather(files));
    $("share").hidden = true; // they are not in the link
  } catch (error) {
    fail(error);
  }
}

$("share").addEventListener("click", async () => {
  await navigator.clipboard.writeText(location.href).then(
    () => { $("live").textContent = $("share").textContent = "Link copied"; },
    () => prompt("Copy this link:", location.href));
  setTimeout(() => { $("share").textContent = "Copy link"; }, 2000);
});

for (const picker of [$("pick-files"), $("pick-folder")]) {
  picker.previousElementSibling.addEventListener("click", () => picker.click());
  picker.addEventListener("change", async () => {
    await openLocal(picked(picker.files));
    picker.value = ""; // the same choice again is a change again
  });
}

let inside = 0; // dragenter and dragleave come for every element on the way
const dragging = (by) => {
  inside = by ? inside + by : 0;
  $("drop").hidden = inside <= 0;
};
const bearsFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => { if (bearsFiles(event)) dragging(1); });
addEventListener("dragleave", (event) => { if (bearsFiles(event)) dragging(-1); });
addEventListener("dragover", (event) => { if (bearsFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!bearsFiles(event)) return;
  event.preventDefault();
  dragging(0);
  openLocal(dropped(event.dataTransfer));
});

try {
  const asked = new URLSearchParams(location.search); // a pack of the folder that is served
  asked.set("mine", mine());
  const { model, running, library } = await (await good(`session.json?${asked}`)).json();
  $("share").hidden = !model; // a folder is not in the link
  if (!model) $("empty").textContent = "Open or drop loops, a folder or a pack's .zip: they play in time with each other.";
  if (library) await openLibrary(library);
  if (model) {
    await ready();
    await makeForm();
    if (running) {
      form.write({ ...running.input });
      await attend(running.id, form.read());
    }
  }
} catch (error) {
  $("ask").hidden = false;
  $("health").textContent = "Not ready";
  fail(error);
}
