// @ts-check
// A file that is dragged from elsewhere onto the page.

/**
 * Shows `veil` while a file hovers, and calls `take` for one that is dropped.
 * @param {HTMLElement} veil
 * @param {(file: File) => void} take
 */
export function takeDrops(veil, take) {
  let inside = 0;
  /** @param {DragEvent} e */
  const dragsFile = (e) => e.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (e) => { if (dragsFile(e)) { inside++; veil.hidden = false; } });
  addEventListener("dragleave", (e) => { if (dragsFile(e) && --inside <= 0) { inside = 0; veil.hidden = true; } });
  addEventListener("dragover", (e) => e.preventDefault());
  addEventListener("drop", (e) => {
    e.preventDefault(); // else the browser would leave the page for the file
    inside = 0;
    veil.hidden = true;
    const [file] = e.dataTransfer?.files ?? [];
    if (file) take(file);
  });
}
