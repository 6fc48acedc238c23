// @ts-check
// The overview: a card for each cluster.

/** @import { Cluster } from "./api.js" */

import { count, el, name, percent, strip, title } from "./pieces.js";

/** @type {Record<string, [string, (a: Cluster, b: Cluster) => number]>} */
export const SORTS = {
  number: ["By number", (a, b) => a.group - b.group],
  size: ["Largest first", (a, b) => b.size - a.size],
  sure: ["Least certain first", (a, b) => (a.confidence ?? 2) - (b.confidence ?? 2)],
  name: ["By name", (a, b) => title(a).localeCompare(title(b), undefined, { numeric: true })],
};

/**
 * A cluster in the overview.
 * @param {Cluster} group
 * @param {Set<number>} chosen the numbers of those that are selected
 * @param {() => void} changed told of it
 * @param {(group: Cluster) => void} rename
 */
export function card(group, chosen, changed, rename) {
  const box = el("input", { type: "checkbox", "aria-label": `Select ${title(group)}`, checked: chosen.has(group.group), "data-key": `select ${group.group}` });
  const node = el("article", { class: "card", "data-group": group.group });
  const mark = () => node.classList.toggle("chosen", box.checked);
  box.addEventListener("change", () => {
    chosen[box.checked ? "add" : "delete"](group.group);
    mark();
    changed();
  });
  mark();
  const level = el("span");
  const sure = el("span", { class: "meter", title: "Mean probability that the network gives this cluster" }, level);
  level.style.width = `${(group.confidence ?? 0) * 100}%`;
  node.append(
    el("a", { class: "cover", href: `#/cluster/${group.group}`, "data-key": `group ${group.group}`, "aria-label": title(group) },
      group.size ? strip(group.typical) : el("span", { class: "hint" }, "No images")),
    el("div", { class: "line" }, box, name(group, "h2"),
      el("button", { class: "quiet", title: "Rename (r)", "aria-label": `Rename ${title(group)}`, "data-key": `rename ${group.group}`, onclick: () => rename(group) }, "✎"),
    ),
    el("div", { class: "line small" }, el("span", {}, count(group.size, "image")), el("span", { class: "fill" }), sure, el("span", { class: "number" }, `${percent(group.confidence)} sure`)));
  return node;
}

/**
 * From one cluster to the next that lies in that direction.
 * @param {KeyboardEvent} e
 * @param {HTMLElement} main
 */
export function stepCards(e, main) {
  const covers = [.../** @type {NodeListOf<HTMLElement>} */ (main.querySelectorAll(".cover"))];
  const at = covers.findIndex((cover) => cover === document.activeElement);
  if (at < 0) return covers[0]?.focus();
  const tops = covers.map((cover) => cover.getBoundingClientRect().top);
  const columns = tops.filter((top) => top === tops[0]).length;
  const steps = new Map([["ArrowLeft", -1], ["ArrowRight", 1], ["ArrowUp", -columns], ["ArrowDown", columns]]);
  covers[at + (steps.get(e.key) ?? 0)]?.focus();
  e.preventDefault();
}
