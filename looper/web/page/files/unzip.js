// A reader for a pack's zip: the browser inflates, this finds the entries. Nothing is written, no path is followed.

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;
const STORED = 0;
const DEFLATED = 8;

function directory(view) {
  const last = view.byteLength - 22;
  for (let at = last; at >= Math.max(0, last - 65535); at--) { // a comment of up to 64 KiB may follow
    if (view.getUint32(at, true) === END) return { count: view.getUint16(at + 10, true), at: view.getUint32(at + 16, true) };
  }
  throw new Error("no directory");
}

/** Inflate at most `size` bytes: an entry that grows beyond what it said is not believed. */
async function inflate(bytes, size) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const out = new Uint8Array(size);
  let filled = 0;
  for (const reader = stream.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (filled + value.length > size) {
      await reader.cancel();
      throw new Error("larger than it says");
    }
    out.set(value, filled);
    filled += value.length;
  }
  return out.buffer.slice(0, filled);
}

/** Entries of the zip in `buffer`: [{name, size, read()}], folders left out; throws where it is no zip. */
export function entries(buffer) {
  const view = new DataView(buffer);
  let { count, at } = directory(view);
  const found = [];
  for (; count > 0; count--) {
    if (view.getUint32(at, true) !== ENTRY) throw new Error("broken directory");
    const [flags, method] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true)];
    const [packed, size] = [view.getUint32(at + 20, true), view.getUint32(at + 24, true)];
    const [nameLength, extra, comment] = [28, 30, 32].map((k) => view.getUint16(at + k, true));
    const local = view.getUint32(at + 42, true);
    const name = new TextDecoder().decode(new Uint8Array(buffer, at + 46, nameLength));
    at += 46 + nameLength + extra + comment;
    const read = async () => {
      if (flags & 1 || ![STORED, DEFLATED].includes(method)) throw new Error("encrypted, or packed in an unusual way");
      if (view.getUint32(local, true) !== LOCAL) throw new Error("broken entry");
      const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
      const bytes = new Uint8Array(buffer, start, packed);
      return method === STORED ? bytes.slice().buffer : inflate(bytes, size);
    };
    if (!name.endsWith("/")) found.push({ name, size, read });
  }
  return found;
}
