// A loop's file dragged out of the page: into a folder, or a DAW that takes files from the browser.

const TYPES = { wav: "audio/wav", mp3: "audio/mpeg", flac: "audio/flac", ogg: "audio/ogg" };

/** What `DownloadURL` says of a file, for browsers that know it: Chromium and its kin. */
export const downloadWords = (name, url) => `${TYPES[name.split(".").pop().toLowerCase()] ?? "application/octet-stream"}:${name.replaceAll(":", "-")}:${url}`;

const OURS = "application/x-musicgen-looper"; // in the drag itself: its end is not told where the card has gone meanwhile

/** Whether what is dragged is one of this page's own loops, which it does not open. */
export const isOurs = ({ types }) => types.includes(OURS);

/** Let `node` be dragged out as the file of `loop` {name, bytes}; whoever asks for text gets its name. */
export function dragOut(node, loop) {
  node.draggable = true;
  let url;
  node.addEventListener("dragstart", ({ dataTransfer }) => {
    url = URL.createObjectURL(new Blob([loop.bytes]));
    dataTransfer.effectAllowed = "copy";
    dataTransfer.setData("DownloadURL", downloadWords(loop.name, url));
    dataTransfer.setData("text/plain", loop.name);
    dataTransfer.setData(OURS, loop.name);
  });
  node.addEventListener("dragend", () => {
    const used = url;
    setTimeout(() => URL.revokeObjectURL(used), 60_000); // the other side may still be reading
  });
}
