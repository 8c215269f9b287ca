// Loops from this computer: dropped or picked files, folders and packs. Nothing leaves the page.

import { entries } from "./unzip.js";

const SOUND = /\.(wav|mp3|flac|ogg)$/i;
const LARGEST = 64 * 2 ** 20; // bytes of one file, as the server's shelf has it
const MOST = 100;

/** `list` is [{name, path, size, read()}]; keeps what lies at the top, or in the single folder there. */
function top(list) {
  const parts = list.map((entry) => ({ ...entry, parts: entry.path.split("/").filter(Boolean) }));
  const single = new Set(parts.map(({ parts: [first] }) => first)).size === 1 && parts.every(({ parts: p }) => p.length > 1);
  return parts.filter(({ parts: p }) => p.length === (single ? 2 : 1));
}

const local = (file, path = file.name) => ({ name: file.name, path, size: file.size, read: () => file.arrayBuffer() });

async function unpacked(file) {
  try {
    return top(entries(await file.arrayBuffer()).map(({ name: path, size, read }) => {
      const name = path.split("/").pop();
      return { name, path, size, read: () => read().catch((error) => { throw new Error(`${name} cannot be unpacked: ${error.message}.`); }) };
    }));
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

/** Files of a drop, those of dropped folders with them: [{name, path, size, read()}]. */
export async function dropped(transfer) {
  // entries must be taken before the first await: the list is empty after the event
  const items = [...transfer.items].filter(({ kind }) => kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  for (const item of items) {
    if (!item?.isDirectory && !item?.isFile) found.push(...(item ? [local(item)] : []));
    else {
      const inside = item.isDirectory ? (await children(item)).filter(({ isFile }) => isFile) : [item];
      const files = await Promise.all(inside.map((entry) => new Promise((resolve, reject) => entry.file(resolve, reject))));
      found.push(...files.map((file) => local(file, item.isDirectory ? `${item.name}/${file.name}` : file.name)));
    }
  }
  return found;
}

/** Files of a file or folder picker. */
export const picked = (files) => [...files].map((file) => local(file, file.webkitRelativePath || file.name));

/** What to play of `list`: {name, loops: [{name, read()}], pack}; zips are looked into. */
export async function gather(list) {
  const here = top(list);
  const zips = here.filter(({ name }) => /\.zip$/i.test(name));
  const opened = await Promise.all(zips.map(async (zip) => unpacked({ name: zip.name, arrayBuffer: zip.read })));
  const all = [...here, ...opened.flat()];
  const loops = all.filter(({ name }) => SOUND.test(name)).sort((a, b) => (a.name < b.name ? -1 : 1));
  const [first] = list;
  const folder = first?.path.includes("/") ? first.path.split("/")[0] : undefined;
  const name = folder ?? (list.length === 1 ? first.name : "loops");
  const large = loops.find(({ size }) => size > LARGEST);
  if (large) throw new Error(`${large.name} is larger than ${LARGEST / 2 ** 20} MiB: too long for a loop.`);
  if (loops.length > MOST) throw new Error(`${loops.length} sound files in ${name}: at most ${MOST} are played at once.`);
  if (!loops.length) throw new Error(`No loops in ${name}: looking for .wav, .mp3, .flac and .ogg files, or a pack's .zip.`);
  const described = all.find((entry) => entry.name === "pack.json" && entry.size < LARGEST);
  const pack = await described?.read().then((bytes) => JSON.parse(new TextDecoder().decode(bytes))).catch(() => null);
  return { name, loops, pack: pack ?? null };
}
