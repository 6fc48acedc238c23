// The overview: a card for each group.

import { count, el, name, percent, strip, title } from "./pieces.js";

export const SORTS = {
  number: ["By number", (a, b) => a.group - b.group],
  size: ["Largest first", (a, b) => b.size - a.size],
  sure: ["Least certain first", (a, b) => (a.confidence ?? 2) - (b.confidence ?? 2)],
  name: ["By name", (a, b) => title(a).localeCompare(title(b), undefined, { numeric: true })],
};

// A group in the overview. `chosen` holds the numbers of those that are selected; `changed` is told of it.
export function card(group, chosen, changed, rename) {
  const box = el("input", { type: "checkbox", "aria-label": `Select ${title(group)}`, checked: chosen.has(group.group) });
  const node = el("article", { class: "card", "data-group": group.group });
  const mark = () => node.classList.toggle("chosen", box.checked);
  box.addEventListener("change", () => {
    chosen[box.checked ? "add" : "delete"](group.group);
    mark();
    changed();
  });
  mark();
  const sure = el("span", { class: "meter", title: "Mean probability that the network gives this group" }, el("span", {}));
  sure.firstChild.style.width = `${(group.confidence ?? 0) * 100}%`;
  node.append(
    el("a", { class: "cover", href: `#/group/${group.group}`, "data-key": `group ${group.group}`, "aria-label": title(group) },
      group.size ? strip(group.typical) : el("span", { class: "hint" }, "No images")),
    el("div", { class: "line" }, box, name(group, "h2"),
      el("button", { class: "quiet", title: "Rename (r)", "aria-label": `Rename ${title(group)}`, onclick: () => rename(group) }, "✎"),
    ),
    el("div", { class: "line small" }, el("span", {}, count(group.size, "image")), el("span", { class: "fill" }), sure, el("span", { class: "number" }, percent(group.confidence))));
  return node;
}

// From one group to the next that lies in that direction.
export function stepCards(e, main) {
  const covers = [...main.querySelectorAll(".cover")], at = covers.indexOf(document.activeElement);
  if (at < 0) return covers[0]?.focus();
  const tops = covers.map((cover) => cover.getBoundingClientRect().top);
  const columns = tops.filter((top) => top === tops[0]).length;
  covers[at + { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[e.key]]?.focus();
  e.preventDefault();
}
