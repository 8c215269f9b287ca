// Files of this computer: buttons, and what is dropped on the page.

import { isOurs } from "./drag.js";
import { dropped, picked } from "./files/open.js";

const $ = (id) => document.getElementById(id);

/** `openLocal` takes a list of files, or a promise of one. */
export function watchForFiles(openLocal) {
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
  const bearsFiles = ({ dataTransfer: data }) => Boolean(data?.types.includes("Files")) && !isOurs(data);
  addEventListener("dragenter", (event) => { if (bearsFiles(event)) dragging(1); });
  addEventListener("dragleave", (event) => { if (bearsFiles(event)) dragging(-1); });
  addEventListener("dragover", (event) => { if (bearsFiles(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!bearsFiles(event)) return;
    event.preventDefault();
    dragging(0);
    openLocal(dropped(event.dataTransfer));
  });
}
