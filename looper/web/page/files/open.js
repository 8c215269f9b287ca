// Loops from this computer: dropped or picked files, folders and packs. Nothing leaves the page.

import { entries } from "./unzip.js";

const SOUND = /\.(wav|mp3|flac|ogg)$/i;
const ZIP = /\.zip$/i;
const LARGEST = 64 * 2 ** 20; // bytes of one file, as the server's library has it
const MOST = 100;

const DEEPEST = 8; // folders within folders

const hidden = (part) => part === "" || part === "__MACOSX" || part.startsWith("."); // a Mac's notes on files too
const within = (folder, parts) => parts.every((part, i) => part === folder[i]);

/**
 * What to play of `list` [{path, size, read()}]: {found, described}, the entries of `kind` at the least depth that
 * has any, named from the folder they share, and the pack.json nearest above them. A `chosen` folder may be hidden.
 */
function top(list, kind, chosen = false) {
  const all = list.map((entry) => ({ ...entry, parts: entry.path.split("/") })).filter(({ parts }) =>
    parts.length <= DEEPEST + chosen && !parts.slice(chosen && parts.length > 1 ? 1 : 0).some(hidden));
  const wanted = all.filter(({ path }) => kind.test(path));
  const depth = wanted.reduce((least, { parts }) => Math.min(least, parts.length), Infinity);
  const found = wanted.filter(({ parts }) => parts.length === depth);
  const folder = found[0]?.parts.slice(0, -1) ?? [];
  while (!found.every(({ parts }) => within(parts, folder))) folder.pop();
  const [described] = all.filter(({ parts }) => parts.at(-1) === "pack.json" && within(folder, parts.slice(0, -1)))
    .sort((a, b) => b.parts.length - a.parts.length);
  return { found: found.map((entry) => ({ ...entry, name: entry.parts.slice(folder.length).join("/") })), described };
}

const local = (file, path = file.name) => ({ name: file.name, path, size: file.size, read: () => file.arrayBuffer() });

async function unpacked(file) {
  try {
    return top(entries(await file.arrayBuffer()).map(({ name: path, size, read }) => {
      const name = path.split("/").pop();
      return { path, size, read: () => read().catch((error) => { throw new Error(`${name} cannot be unpacked: ${error.message}.`); }) };
    }), SOUND);
  } catch {
    throw new Error(`${file.name} is not a zip that this page can read.`);
  }
}

const children = (folder) => new Promise((resolve, reject) => {
  const [reader, found] = [folder.createReader(), []];
  const more = () => reader.readEntries((batch) => { // in batches; an empty one is the last
    found.push(...batch);
    if (batch.length) more();
    else resolve(found);
  }, reject);
  more();
});

/** Files of a dropped file or folder, and of the folders in it that are not hidden. */
async function files(entry, path = entry.name, depth = 0) {
  if (entry.isFile) return [local(await new Promise((resolve, reject) => entry.file(resolve, reject)), path)];
  const inside = depth < DEEPEST ? (await children(entry)).filter(({ name }) => !hidden(name)) : [];
  return (await Promise.all(inside.map((child) => files(child, `${path}/${child.name}`, depth + 1)))).flat();
}

/** Files of a drop, those of dropped folders with them: [{name, path, size, read()}]. */
export async function dropped(transfer) {
  // entries must be taken before the first await: the list is empty after the event
  const items = [...transfer.items].filter(({ kind }) => kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = items.filter(Boolean).map((item) => (item.isDirectory || item.isFile ? files(item) : [local(item)]));
  return (await Promise.all(found)).flat();
}

/** Files of a file or folder picker. */
export const picked = (files) => [...files].map((file) => local(file, file.webkitRelativePath || file.name));

/** What to play of `list`: {name, loops: [{name, read()}], pack}; zips are looked into. */
export async function gather(list) {
  const here = top(list, /\.(wav|mp3|flac|ogg|zip)$/i, true);
  const zips = here.found.filter(({ name }) => ZIP.test(name));
  const opened = await Promise.all(zips.map(async (zip) => unpacked({ name: zip.name, arrayBuffer: zip.read })));
  const all = [...here.found, ...opened.flatMap(({ found }) => found)];
  const loops = all.filter(({ name }) => SOUND.test(name)).sort((a, b) => (a.name < b.name ? -1 : 1));
  const [first] = list;
  const folder = first?.path.includes("/") ? first.path.split("/")[0] : undefined;
  const name = folder ?? (list.length === 1 ? first.name : "loops");
  const large = loops.find(({ size }) => size > LARGEST);
  if (large) throw new Error(`${large.name} is larger than ${LARGEST / 2 ** 20} MiB: too long for a loop.`);
  if (loops.length > MOST) throw new Error(`${loops.length} sound files in ${name}: at most ${MOST} are played at once.`);
  if (!loops.length) throw new Error(`No loops in ${name}: looking for .wav, .mp3, .flac and .ogg files, or a pack's .zip.`);
  const described = [here, ...opened].map(({ described: one }) => one).find((one) => one?.size < LARGEST);
  const pack = await described?.read().then((bytes) => JSON.parse(new TextDecoder().decode(bytes))).catch(() => null);
  return { name, loops, pack: pack ?? null };
}
