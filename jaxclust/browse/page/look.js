// One image large, and the images most like it.

import { ask } from "./api.js";
import { el, name, percent, strip } from "./pieces.js";

const SMALL = 64; // pixels of a side; below it they are shown as they are, not smoothed
const ENLARGED = 512; // pixels of a side, up to which small ones are enlarged

function picture(urls, label, note) {
  const image = el("img", { alt: label, src: urls[0] });
  image.addEventListener("load", () => {
    const side = Math.max(image.naturalWidth, image.naturalHeight);
    image.classList.toggle("pixelated", side <= SMALL);
    image.style.maxWidth = image.style.maxHeight = `${Math.max(side, ENLARGED)}px`;
  });
  image.addEventListener("error", () => {
    if (urls.length < 2) return;
    urls = urls.slice(1);
    image.src = urls[0];
    note.textContent = "The original file is not there any more, or not in the data's folder; these are the pixels that the network was shown.";
  });
  return image;
}

export function neighbours(state, found, group, href) {
  const groups = new Map(state.groups.map((g) => [g.group, g]));
  const box = strip(found.map((one) => one.row), (_, i) => {
    const one = found[i], its = groups.get(one.group) || { group: one.group, name: "" };
    const label = name(its);
    label.classList.toggle("other", one.group !== group);
    return el("a", { class: "neighbour", href: href(one.row), title: `Image ${one.row}, similarity ${one.cosine.toFixed(2)}` },
      el("span", { class: "picture" }), label);
  });
  box.classList.add("neighbours");
  return box;
}

// The image of a row; returns the element, and the number of its group.
export async function image(state, row, href) {
  const { answer: about } = await ask(`/api/image/${row}`);
  const group = state.groups.find((g) => g.group === about.group) || { group: about.group, name: "" };
  const note = el("p", { class: "hint" });
  const urls = [`/api/pixels/${row}`];
  if (state.originals) urls.unshift(`/api/original/${row}`);
  const side = el("div", { class: "side" },
    about.file === null ? el("h2", {}, `Image ${row}`) : el("h2", { class: "file", dir: "auto" }, about.file),
    el("p", {}, el("a", { class: "chip", href: `#/group/${group.group}` }, name(group)),
      el("span", { class: "hint" }, about.placed ? " placed by hand" : ` the network is ${percent(about.confidence)} sure`)),
    el("p", { class: "acts" }, el("button", { class: "primary", "data-act": "move" }, "Move to …")), note,
    el("h3", {}, "Most like it"), neighbours(state, about.neighbours, about.group, href));
  return { group: about.group, node: el("div", { class: "look" }, el("div", { class: "large" }, picture(urls, about.file ?? `Image ${row}`, note)), side) };
}

// What a search has found for the user's own image.
export function found(state, url, answer, href) {
  const group = state.groups.find((g) => g.group === answer.group) || { group: answer.group, name: "" };
  const side = el("div", { class: "side" }, el("h2", {}, "Your image"),
    el("p", {}, "belongs to ", el("a", { class: "chip", href: `#/group/${group.group}` }, name(group)),
      el("span", { class: "hint" }, ` ${percent(answer.confidence)} sure`)),
    el("h3", {}, "Most like it"), neighbours(state, answer.neighbours, answer.group, href));
  return el("div", { class: "look" }, el("div", { class: "large" }, picture([url], "Your image")), side);
}
