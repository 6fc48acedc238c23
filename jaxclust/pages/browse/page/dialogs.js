// @ts-check
// Dialogs in which something is decided. Each holds on to the version of the clusters that its user saw when it opened.

/** @import { Answered, Cluster, Entry, State } from "./api.js" */
/** @typedef {(seen: string, entry: Entry) => unknown} Decide  Takes a version of the clusters, and what is decided. */
/** @typedef {Extract<Entry, { do: "merge" }>} MergeEntry */

import { post } from "./api.js";
import { count, el, name, strip, title } from "./pieces.js";

const TYPICAL = 8;

/**
 * Opens a modal dialog, which is gone from the page however it ends.
 * @param {string} className
 * @param {string} label
 * @param {import("./pieces.js").Child[]} children
 */
export function modal(className, label, ...children) {
  const dialog = el("dialog", { class: className, "aria-label": label }, ...children);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (e) => e.target === dialog && dialog.close()); // beside it
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * @param {string} label
 * @param {string} act what the button says
 * @param {() => void} submit
 * @param {import("./pieces.js").Child[]} children
 */
function form(label, act, submit, ...children) {
  const go = el("button", { class: "primary" }, act);
  const cancel = el("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const body = el("form", { method: "dialog" }, el("h2", {}, label), ...children, el("p", { class: "acts" }, cancel, go));
  const dialog = modal("ask", label, body);
  body.addEventListener("submit", () => submit());
  return { dialog, go };
}

/** @param {State} state @param {Cluster} group @param {Decide} decide */
export function rename(state, group, decide) {
  const seen = state.version;
  const input = el("input", { type: "text", maxlength: state.longest, "aria-label": "Name", placeholder: `Cluster ${group.group}` });
  input.value = group.name;
  form("Rename cluster", "Rename", () => {
    if (input.value.trim() !== group.name) decide(seen, { do: "rename", group: group.group, name: input.value });
  }, input, el("p", { class: "hint" }, "Leave it empty to take the name away."));
  input.select();
}

/** @param {State} state @param {number[]} rows of the images that it is made of @param {Decide} decide */
export function create(state, rows, decide) {
  const seen = state.version;
  const input = el("input", { type: "text", maxlength: state.longest, "aria-label": "Name", placeholder: "Name" });
  form(`New cluster of ${count(rows.length, "image")}`, "Make it", () => decide(seen, { do: "new", rows, name: input.value }),
    el("div", { class: "parts few" }, strip(rows.slice(0, TYPICAL))), input,
    el("p", { class: "hint" }, "A name can be given later, too. New images go there where they are as like these as no others were."));
  input.focus();
}

/** @param {string} into the folder that is proposed @param {(into: string, copy: boolean) => unknown} sort */
export function folders(into, sort) {
  const input = el("input", { type: "text", required: true, "aria-label": "Folder", spellcheck: false });
  const copy = el("input", { type: "checkbox" });
  input.value = into;
  form("Sort into folders", "Sort", () => sort(input.value, copy.checked), input,
    el("label", { class: "option" }, copy, "copies of the files instead of links to them"),
    el("p", { class: "hint" }, "A folder for each cluster, as it is now, on the machine that this page comes from. Sorting there again puts right what has changed; no file that was there before is touched."));
}

/** @param {State} state @param {Cluster[]} groups @param {(seen: string, entry: MergeEntry) => unknown} decide */
export function merge(state, groups, decide) {
  const seen = state.version;
  const largest = groups.reduce((a, b) => (b.size > a.size ? b : a));
  const named = groups.filter((group) => group.name);
  const first = named.length === 1 ? named[0] : largest;
  const options = groups.map((group) => {
    const radio = el("input", { type: "radio", name: "into", value: group.group, checked: group === first });
    return el("label", { class: "choice" }, radio, strip(group.typical.slice(0, 4)), name(group),
      el("small", {}, count(group.size, "image")));
  });
  const { dialog } = form(`Merge ${groups.length} clusters into one`, "Merge", () => {
    const into = Number(/** @type {HTMLInputElement} */ (dialog.querySelector("input:checked")).value);
    const others = groups.map((group) => group.group).filter((group) => group !== into);
    decide(seen, { do: "merge", groups: [into, ...others] });
  }, el("p", { class: "hint" }, "Which one do the others become part of? It keeps its name."),
  el("div", { class: "choices" }, ...options));
}

/**
 * Lets one of the clusters be chosen, by pointer, or by typing a part of its name and Enter.
 * @param {State} state
 * @param {string} label
 * @param {number | null} but the one that is not to be chosen
 * @param {(seen: string, group: Cluster) => void} chosen
 */
export function pick(state, label, but, chosen) {
  const seen = state.version;
  const filter = el("input", { type: "search", placeholder: "Find a cluster", "aria-label": "Find a cluster" });
  /** @type {Map<HTMLElement, string>} */
  const called = new Map();
  const choices = state.groups.filter((group) => group.group !== but).map((group) => {
    const button = el("button", { type: "button", class: "choice", onclick: () => { dialog.close(); chosen(seen, group); } },
      strip(group.typical.slice(0, 4)), name(group), el("small", {}, count(group.size, "image")));
    called.set(button, title(group).toLowerCase());
    return button;
  });
  const none = el("p", { class: "hint", hidden: true }, "No cluster has that in its name.");
  const dialog = modal("ask", label, el("h2", {}, label), filter, el("div", { class: "choices" }, ...choices, none),
    el("p", { class: "acts" }, el("button", { onclick: () => dialog.close() }, "Cancel")));
  filter.addEventListener("input", () => {
    for (const choice of choices) choice.hidden = !called.get(choice)?.includes(filter.value.trim().toLowerCase());
    const shown = choices.filter((choice) => !choice.hidden);
    for (const choice of choices) choice.classList.toggle("first", choice === shown[0]); // which Enter takes
    none.hidden = shown.length > 0;
  });
  dialog.addEventListener("keydown", (e) => {
    const shown = choices.filter((choice) => !choice.hidden), at = shown.findIndex((choice) => choice === document.activeElement);
    if (e.key === "ArrowDown") (shown[at + 1] || shown[0])?.focus();
    else if (e.key === "ArrowUp") (shown[at - 1] || filter).focus();
    else if (e.key === "Enter" && document.activeElement === filter) shown[0]?.click();
    else return;
    e.preventDefault();
  });
  filter.focus();
}

/** @param {State} state @param {Cluster} group @param {Decide} decide @param {(answer: State) => void} changed */
export function split(state, group, decide, changed) {
  const seen = state.version;
  let parts = 2, turn = 0;
  const shown = el("div", { class: "parts", "aria-live": "polite" });
  const numbers = Array.from({ length: state.parts - 1 }, (_, i) => i + 2).map((n) => {
    const radio = el("input", { type: "radio", name: "parts", value: n, checked: n === parts, onchange: () => look(n) });
    return el("label", {}, radio, el("span", {}, n));
  });
  const { dialog, go } = form("Split cluster", "Split", () => decide(seen, { do: "split", group: group.group, parts }),
    el("p", { class: "hint" }, "By how alike its images are to the network. Nothing is decided until you split."),
    el("fieldset", { class: "numbers" }, el("legend", {}, "Into how many?"), ...numbers), shown);

  /** @param {number} n */
  async function look(n) {
    const mine = ++turn;
    parts = n;
    go.disabled = true;
    go.textContent = `Split into ${n}`;
    shown.classList.add("waiting");
    if (!shown.childElementCount) shown.append(el("p", { class: "hint" }, "Looking …"));
    try {
      /** @type {Answered<State | { parts: Cluster[] }>} */
      const { answer } = await post("/api/preview", { seen, group: group.group, parts: n });
      if (mine !== turn || !dialog.open) return;
      if ("groups" in answer) { dialog.close(); return changed(answer); }
      shown.replaceChildren(...answer.parts.map((part) =>
        el("section", {},
          el("h3", {}, name(part), el("small", {}, `${part.group === group.group ? "stays" : "new"}, ${count(part.size, "image")}`)),
          strip(part.typical.slice(0, TYPICAL)))));
      go.disabled = false;
    } catch (e) {
      if (mine === turn) shown.replaceChildren(el("p", { class: "hint" }, e instanceof Error ? e.message : String(e)));
    } finally {
      if (mine === turn) shown.classList.remove("waiting");
    }
  }
  look(parts);
}

export function keys() {
  const rows = [
    ["↑ ↓ ← →", "from image to image, or cluster to cluster"], ["Enter", "open"], ["x or Space", "select"],
    ["Shift with arrows or click", "select all between"], ["Ctrl+A", "select all of the cluster"],
    ["m", "move what is selected, or the open image"], ["n", "make a new cluster of it"], ["r", "rename the cluster"], ["s", "split the cluster"],
    ["Esc", "close, or select nothing"], ["Ctrl+Z", "undo"], ["?", "this"],
  ];
  const table = el("table", {}, ...rows.map(([key, what]) => el("tr", {}, el("td", {}, el("kbd", {}, key)), el("td", {}, what))));
  form("Keys", "Close", () => {}, table).dialog.querySelector("button[type=button]")?.remove();
}
