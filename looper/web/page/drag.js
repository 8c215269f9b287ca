// A loop's file dragged out of the page: into a folder, or a DAW that takes files from the browser.

const TYPES = { wav: "audio/wav", mp3: "audio/mpeg", flac: "audio/flac", ogg: "audio/ogg" };

/** What `DownloadURL` says of a file, for browsers that know it: Chromium and its kin. */
export const downloadWords = (name, url) => `${TYPES[name.split(".").pop().toLowerCase()] ?? "application/octet-stream"}:${name.replaceAll(":", "-")}:${url}`;

/** Whether a drag began here: our own page does not open its own loops. */
export const ours = { now: false };

/** Let `node` be dragged out as the file of `loop` {name, bytes}; whoever asks for text gets its name. */
export function dragOut(node, loop) {
  node.draggable = true;
  let url;
  node.addEventListener("dragstart", ({ dataTransfer }) => {
    url = URL.createObjectURL(new Blob([loop.bytes]));
    ours.now = true;
    dataTransfer.effectAllowed = "copy";
    dataTransfer.setData("DownloadURL", downloadWords(loop.name, url));
    dataTransfer.setData("text/plain", loop.name);
  });
  node.addEventListener("dragend", () => {
    ours.now = false;
    const used = url;
    setTimeout(() => URL.revokeObjectURL(used), 60_000); // the other side may still be reading
  });
}
