// @ts-check
// One image large, and the images most like it.

/** @import { About, Answered, Found, Neighbour, State } from "./api.js" */

import { ask } from "./api.js";
import { el, name, percent, strip } from "./pieces.js";

const SMALL = 64; // pixels of a side; below it they are shown as they are, not smoothed
const ENLARGED = 512; // pixels of a side, up to which small ones are enlarged

/**
 * @param {string[]} urls tried one after another
 * @param {string} label
 * @param {HTMLElement} [note] where it is said that the first could not be shown
 */
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
    if (note) note.textContent = "The original file is not there any more, or not in the data's folder; these are the pixels that the network was shown.";
  });
  return image;
}

/** @typedef {(row: number) => string} Href  The address of an image. */
/** @typedef {{ rows: Set<number>, changed: () => void }} Picks  Those that are selected, and who is told of it. */

/** @param {State} state @param {Neighbour[]} found @param {number} group @param {Href} href @param {Picks} picks */
export function neighbours(state, found, group, href, picks) {
  const groups = new Map(state.groups.map((g) => [g.group, g]));
  const box = strip(found.map((one) => one.row), (_, i) => {
    const one = found[i], its = groups.get(one.group) || { group: one.group, name: "" };
    const label = name(its);
    label.classList.toggle("other", one.group !== group);
    const node = el("a", { class: "neighbour", href: href(one.row), "data-key": `image ${one.row}`, title: `Image ${one.row}, similarity ${one.cosine.toFixed(2)}` },
      el("span", { class: "picture" }), label, el("span", { class: "check" }));
    const mark = () => node.toggleAttribute("data-picked", picks.rows.has(one.row));
    /** @param {Event} e */
    const pick = (e) => {
      e.preventDefault();
      picks.rows[picks.rows.has(one.row) ? "delete" : "add"](one.row);
      mark();
      picks.changed();
    };
    node.addEventListener("click", (e) => {
      const check = e.target instanceof Element && e.target.matches(".check");
      if (check || e.ctrlKey || e.metaKey || picks.rows.size) pick(e);
    });
    node.addEventListener("keydown", (e) => { if (e.key === "x" || e.key === " ") pick(e); });
    mark();
    return node;
  });
  box.classList.add("neighbours");
  return box;
}

// What can be done with what is open and selected; filled by whoever knows how.
const acts = () => el("p", { class: "acts" });

/**
 * The image of a row; returns the element, and the number of its cluster.
 * @param {State} state
 * @param {number} row
 * @param {Href} href
 * @param {Picks} picks
 */
export async function image(state, row, href, picks) {
  /** @type {Answered<About>} */
  const { answer: about } = await ask(`/api/image/${row}`);
  const group = state.groups.find((g) => g.group === about.group) || { group: about.group, name: "" };
  const note = el("p", { class: "hint" });
  const urls = [`/api/pixels/${row}`];
  if (state.originals) urls.unshift(`/api/original/${row}`);
  const side = el("div", { class: "side" },
    about.file === null ? el("h2", {}, `Image ${row}`) : el("h2", { class: "file", dir: "auto" }, about.file),
    el("p", {}, el("a", { class: "chip", href: `#/cluster/${group.group}` }, name(group)),
      el("span", { class: "hint" }, about.placed ? " placed by hand" : ` the network is ${percent(about.confidence)} sure`)),
    acts(), note,
    el("h3", {}, "Most like it"), neighbours(state, about.neighbours, about.group, href, picks));
  return { group: about.group, node: el("div", { class: "look" }, el("div", { class: "large" }, picture(urls, about.file ?? `Image ${row}`, note)), side) };
}

/**
 * What a search has found for the user's own image.
 * @param {State} state
 * @param {string} url
 * @param {Found} answer
 * @param {Href} href
 * @param {Picks} picks
 */
export function found(state, url, answer, href, picks) {
  const group = state.groups.find((g) => g.group === answer.group) || { group: answer.group, name: "" };
  const side = el("div", { class: "side" }, el("h2", {}, "Your image"),
    answer.novel ? el("p", { class: "novel" }, "It looks unlike anything seen in training.") : null,
    el("p", {}, answer.novel ? "The nearest cluster is " : "belongs to ", el("a", { class: "chip", href: `#/cluster/${group.group}` }, name(group)),
      el("span", { class: "hint" }, ` ${percent(answer.confidence)} sure`)),
    acts(), el("h3", {}, "Most like it"), neighbours(state, answer.neighbours, answer.group, href, picks));
  return el("div", { class: "look" }, el("div", { class: "large" }, picture([url], "Your image")), side);
}
