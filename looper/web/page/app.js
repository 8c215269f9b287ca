// Boot: learn from the server what there is, then wire the form, the history and the player to predictions, or show the
// folder's loops.

import { confidences } from "./journey.js";
import { LOOPS, PROMPTS } from "./examples.js";
import { build, el, inputs } from "./form.js";
import { showLength } from "./length.js";
import { fileName } from "./audio/loop.js";
import { believable } from "./audio/wav.js";
import { gather } from "./files/open.js";
import { watchForFiles } from "./open.js";
import { nameFiles, present, showStars } from "./player.js";
import { cancel, continueFrom, files, follow, mine, start, typed, usedSeed } from "./predictions.js";
import { back, good, ready } from "./server.js";
import { isContinued, moreLikeThis } from "./session/history.js";
import { History } from "./session/panel.js";
import { bringUp, fail, note, showProgress } from "./status.js";

const $ = (id) => document.getElementById(id);
const fromHash = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
let form;
let continues = false; // whether the server makes variations of recordings

const sets = new History({
  open: (set) => show(set).then(() => {
    form.write({ ...form.read(), ...set.values });
    form.tellSeed(set.seed);
  }, fail),
  openStars: (stars) => showStarred(stars).catch(fail),
  more: (set) => make(moreLikeThis(set)),
});

/** Follow prediction `id` on the page, whoever started it. */
async function attend(id, values) {
  const giveUp = new AbortController();
  fail(null);
  showProgress();
  $("progress").hidden = false;
  bringUp("player");
  for (const button of [$("make"), $("more")]) button.disabled = true;
  $("cancel").onclick = () => {
    $("cancel").disabled = true;
    cancel(id, values).catch(() => giveUp.abort());
  };
  try {
    const done = await follow(id, values, (state) => showProgress(state, values.variations), giveUp.signal);
    if (done) await deliver(id, done, values);
    else note("Canceled: nothing was made. The form is as you left it.");
  } catch (error) {
    fail(error);
  }
  $("progress").hidden = true;
  for (const button of [$("make"), $("more"), $("cancel")]) button.disabled = false;
}

/** Ask for loops, by `ask(values)`, and follow them to the page: one request at a time. */
async function make(values, ask = start) {
  if ($("make").disabled) {
    note("Your request is still being made: wait for it, or cancel it.");
    return;
  }
  fail(null);
  note();
  $("make").disabled = true;
  const id = await ask(values).catch((error) => { fail(error); $("make").disabled = false; });
  if (id) await attend(id, values);
}

/** Make variations that go on from a loop: in the words of the form, or where there are none, in the loop's own. */
function vary(loop, own) {
  if (!form) {
    note("The model is still loading: choose Continue again in a moment.");
    return;
  }
  const { bpm, variations, model_version, output_format, ...asked } = form.read();
  const prompt = asked.prompt || own;
  if (!prompt) {
    note("Say in the form what it should sound like, then choose Continue again.");
    document.querySelector("[name=prompt]").focus();
    return;
  }
  const values = { prompt, bpm: loop.bpm ?? bpm, variations, model_version, output_format, continued: true };
  make(values, (asked) => continueFrom(loop.bytes, asked));
}

async function deliver(id, done, values) {
  const seed = usedSeed(done, values.seed);
  const { predict_time: seconds, model } = done.metrics ?? {};
  const set = { id, made: Date.now(), values, seed, model, seconds, stars: [], confidence: confidences(done.logs), files: await files(done.output) };
  await show(set);
  await sets.add(set);
  form.tellSeed(seed);
}

/** The number of a set's first loop: what it goes on from, where it does, is number 0. */
const first = (set) => (isContinued(set) ? 0 : 1);

/** Show a set that was made, now or before, with what can be done with it. */
async function show(set) {
  const { values, seed, model, seconds, files: found, confidence = [] } = set;
  const hints = values.bpm ? { bpm: values.bpm } : {};
  const from = first(set);
  const label = (k) => (k ? `Variation ${k}` : "The loop itself");
  const rows = found.map(({ bytes }, i) => ({ name: `variation ${i + from}`, label: label(i + from), bytes, hints, confidence: confidence[i + from - 1] }));
  await present(rows, { onStar: (index) => showStars(sets.turnStar(set.id, index)), onVary: continues && ((loop) => vary(loop, values.prompt)) });
  showStars(set.stars);
  nameFiles((loop, i) => fileName({ ...values, seed }, loop, i + from, found[i].extension));
  $("player-title").textContent = values.prompt || "Loops";
  $("share").hidden = $("more").hidden = !from; // what goes on from a recording is not in a link
  $("more").onclick = () => make(moreLikeThis(set));
  sets.show(set.id);
  $("health").textContent = [`${found.length} made`, model && `by ${model}`, seconds && `in ${seconds.toFixed(1)} s`, seed >= 0 && `from seed ${seed}`].filter(Boolean).join(" ");
  fail(null);
  if (found.length && from) history.replaceState(null, "", form.hash({ ...values, ...(Number.isInteger(seed) && { seed }) }));
  bringUp("player");
}

/** Show the starred loops of all sets, side by side. */
async function showStarred(stars) {
  const rows = stars.map(({ set, index }) => ({
    name: `star ${index}`, label: `${set.values.prompt || "Loop"}, ${index + first(set)}`, bytes: set.files[index].bytes,
    hints: set.values.bpm ? { bpm: set.values.bpm } : {}, confidence: set.confidence?.[index + first(set) - 1],
  }));
  const left = new Set(stars);
  const turn = (at) => {
    sets.turnStar(stars[at].set.id, stars[at].index);
    if (!left.delete(stars[at])) left.add(stars[at]);
    showStars([...stars.keys()].filter((k) => left.has(stars[k])));
  };
  await present(rows, { name: "starred", onStar: turn, onVary: continues && ((loop) => vary(loop)) });
  showStars([...stars.keys()]);
  nameFiles((loop, i) => {
    const { set, index } = stars[i];
    return fileName({ ...set.values, seed: set.seed }, loop, index + first(set), set.files[index].extension);
  });
  $("player-title").textContent = "Starred";
  $("health").textContent = "Ready";
  $("share").hidden = $("more").hidden = true;
  sets.show(null);
  bringUp("player");
}

async function makeForm(models) {
  form = build($("form"), inputs(await (await good("openapi.json")).json()), models);
  showLength($("form"));
  form.write(fromHash());
  addEventListener("hashchange", () => form.write(fromHash()));
  $("ask").hidden = false;
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    make(form.read());
  });
  offerExamples();
}

/** On an empty page: words to try, and something to hear. */
function offerExamples() {
  const words = PROMPTS.map(({ prompt, bpm }) => {
    const button = el("button", { type: "button", textContent: `${prompt} · ${bpm} BPM` });
    button.addEventListener("click", () => {
      form.write({ ...form.read(), prompt, bpm });
      $("make").focus();
      bringUp("ask");
    });
    return button;
  });
  const hear = el("button", { type: "button", id: "hear", className: "primary", textContent: "Hear an example" });
  hear.addEventListener("click", () => hearExample().catch(fail));
  $("empty").append(hear, el("h3", { textContent: "Or try these words" }), el("div", { id: "words" }, ...words));
}

async function hearExample() {
  const set = await Promise.all(LOOPS.map(async ({ url, ...about }) => ({ ...about, bytes: await (await good(url)).arrayBuffer() })));
  await present(set.map((loop, i) => ({ ...loop, label: `Variation ${i + 1}` })), { name: "example" });
  $("player-title").textContent = "An example, made by the small demonstration model";
  $("share").hidden = $("more").hidden = true;
  $("play").focus();
}

/** Show loops of a folder or pack, [{name, read()}], with what its pack.json says. */
async function openSet({ name, loops, pack }) {
  const rows = Array.isArray(pack?.loops) ? pack.loops : [];
  const said = Object.fromEntries(rows.filter(Boolean).map((entry) => [entry.file ?? entry.name, believable(entry)]));
  const load = async ({ name: file, read }) => ({ name: file, hints: said[file], bytes: await read() });
  await present(await Promise.all(loops.map(load)), { name: name.replace(/\.zip$/i, ""), onVary: continues && ((loop) => vary(loop)) });
  document.title = `${name} – musicgen-looper`;
  $("player-title").textContent = pack?.title ?? pack?.prompt ?? name;
  sets.show(null);
}

async function openLibrary({ name, loops, pack, note: words, packs, open }) {
  offer(packs, open);
  if (!loops.length) $("empty").textContent = words;
  const remote = ({ name: file, url }) => ({ name: file, read: async () => (await good(url)).arrayBuffer() });
  await openSet({ name, loops: loops.map(remote), pack });
  if (loops.length && words) fail(new Error(words));
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
  note();
  try {
    const found = await list;
    if (!found.length) return;
    await openSet(await gather(found));
    $("share").hidden = $("more").hidden = true; // they are not in the link
    bringUp("player");
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

async function boot() {
  const asked = new URLSearchParams(location.search); // a pack of the folder that is served
  asked.set("mine", mine());
  const { model, models, continues: can, running, library } = await (await good(`session.json?${asked}`)).json();
  continues = can;
  $("share").hidden = !model; // a folder is not in the link
  if (!model) $("empty").textContent = "Open or drop loops, a folder or a pack's .zip: they play in time with each other.";
  if (library) await openLibrary(library);
  if (!model) return;
  await ready((words) => { $("health").textContent = words; });
  $("health").textContent = "Ready";
  await makeForm(models);
  await sets.restore();
  if (!running) return;
  const values = typed(running.input);
  form.write(values);
  await attend(running.id, values);
}

watchForFiles(openLocal);
for (let again = true; again;) {
  again = await boot().then(() => false, async (error) => {
    $("health").textContent = "Not ready";
    fail(error);
    if (!error.away) return false;
    await back();
    fail(null);
    return true;
  });
}
