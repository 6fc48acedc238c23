// @ts-check
// The page: what it shows follows from its address (`#/`, `#/cluster/3/typical`, `.../image/17`, `.../search`) and the clusters' state.

/** @import { Answered, Cluster, Entry, Found, Listed, Sorted, State } from "./api.js" */
/** @typedef {{ group: number | null, order: Order, image: number | null, search: boolean, wrong: string }} Place  What an address says. */
/** @typedef {keyof typeof ORDERS} Order */

import { ask, post, Refused, search } from "./api.js";
import { card, SORTS, stepCards } from "./cards.js";
import * as dialogs from "./dialogs.js";
import { takeDrops } from "./drop.js";
import { Grid } from "./grid.js";
import * as look from "./look.js";
import { byId, count, el, keep, kept, name, percent, select, setSheet, title } from "./pieces.js";

const POLL = 2000; // milliseconds between questions whether another window has decided something
/** @type {{ typical: [string], uncertain: [string], file: [string] }} */
const ORDERS = { typical: ["Most certain first"], uncertain: ["Least certain first"], file: ["By file"] };
const SIZES = [48, 64, 96, 128, 192];

const main = byId("main"), bar = byId("bar");
const undoing = /** @type {HTMLButtonElement} */ (byId("undo"));
const chooser = /** @type {HTMLInputElement} */ (byId("file"));
/** @type {State} */
let state; // there once the first answer has come, before anything is shown or done
/** @type {Set<number>} */
let chosen = new Set(); // clusters selected in the overview
/** @type {{ group: number, order: Order, grid: Grid } | null} */
let view = null; // of a cluster
/** @type {{ dialog: HTMLDialogElement, began: string, wanted: string, row: number | null, group: number | null, picked: Set<number> } | null} */
let open = null; // a dialog with an image, or with what a search has found, and what is selected there
/** @type {{ url: string, answer: Found } | null} */
let result = null; // of a search
/** @type {Promise<unknown>} */
let queue = Promise.resolve(); // of this window's decisions
/** @type {Map<string, string>} */
const mine = new Map(); // versions that this window's decisions have followed -> the version that they led to
/** @type {Map<number, number>} */
const heirs = new Map(); // clusters that this window has merged -> into which
/** @type {Map<string, number>} */
const places = new Map(); // where each list was scrolled to
let folder = ""; // into which this window has sorted last

// ---- notices --------------------------------------------------------------------------------------------------

/**
 * @param {string} text
 * @param {{ lasting?: boolean, lines?: string[], link?: [string, string] }} how  A link is a text and an address.
 */
function notice(text, { lasting = false, lines = [], link } = {}) {
  const node = el("div", { class: lasting ? "notice lasting" : "notice", role: lasting ? "alert" : "status" },
    el("div", {}, el("strong", {}, text), ...lines.map((line) => el("p", { dir: "auto" }, line)),
      link ? el("a", { class: "link", href: link[1], onclick: () => node.remove() }, link[0]) : null),
    el("button", { "aria-label": "Dismiss", onclick: () => node.remove() }, "×"));
  byId("notices").append(node);
  // A modal dialog covers the page, so notices are shown above it.
  if (byId("notices").matches(":popover-open")) byId("notices").hidePopover();
  byId("notices").showPopover();
  if (!lasting) setTimeout(() => node.remove(), 6000);
}

/** @param {string} text */
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// ---- deciding -------------------------------------------------------------------------------------------------

/**
 * The answer, or null where it has been said that there is none.
 * @template T
 * @param {() => Promise<T>} question
 * @returns {Promise<T | null>}
 */
async function attempt(question) {
  try {
    return await question();
  } catch (e) {
    if (!(e instanceof Refused)) throw e;
    notice(capital(e.message), { lasting: true });
    return null;
  }
}

/**
 * One thing after another; what was begun while this window's own last decision was under way has seen that, too.
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
function inTurn(work) {
  const done = queue.then(work);
  queue = done.catch(() => {});
  return done;
}

/** @param {string} seen @param {Entry} entry */
const decide = (seen, entry) => inTurn(() => send(mine.get(seen) ?? seen, { entry }, "/api/decide"));

/** @param {string} seen @param {object} more @param {string} path */
async function send(seen, more, path) {
  /** @type {Answered<State> | null} */
  const got = await attempt(() => post(path, { seen, ...more }));
  if (got === null) return false;
  if (got.changed) conflict(got.answer);
  else {
    const now = got.answer.version;
    for (const [before, then] of mine) if (then === seen) mine.set(before, now);
    mine.set(seen, now);
    mine.delete(now);
    await update(got.answer);
  }
  return !got.changed;
}

/** @param {State} answer */
function conflict(answer) {
  notice("Not saved: somebody else has changed the clusters. Look again, and repeat it if you still want it.",
    { lasting: true, lines: answer.news.map(capital) });
  update(answer);
}

const undo = () => inTurn(async () => {
  const { last, version } = state;
  if (last && (await send(version, {}, "/api/undo"))) notice("Undone", { lines: [capital(last)] });
});

/** @param {string} seen @param {import("./dialogs.js").MergeEntry} entry */
async function mergeGroups(seen, entry) {
  const [into, ...others] = entry.groups;
  for (const group of others) heirs.set(group, into);
  if (await decide(seen, entry)) {
    chosen.clear();
    if (!view) showGroups();
  }
  showBar();
}

/** @param {State} answer */
async function update(answer) {
  state = answer;
  setSheet(state.sheet);
  byId("run").textContent = state.run;
  byId("about").textContent = `${count(state.images, "image")} · ${count(state.groups.length, "cluster")} · step ${state.step.toLocaleString("en")}`;
  chosen = new Set([...chosen].filter((group) => state.groups.some((g) => g.group === group)));
  undoing.disabled = !state.last;
  undoing.title = state.last ? `Undo (Ctrl+Z): ${state.last}` : "Nothing has been decided";
  await render(true);
}

/** @type {{ lost: HTMLElement | null, timer: number }} */
const polling = { lost: null, timer: 0 };

async function poll() {
  if (!document.hidden && state) {
    const seen = state.version;
    try {
      /** @type {Answered<{ version: string, server: string }>} */
      const { answer } = await ask("/api/version");
      polling.lost?.remove();
      polling.lost = null;
      if (answer.server !== state.sheet.token) return location.reload(); // another server, perhaps of another run
      if (answer.version !== seen && state.version === seen) {
        /** @type {Answered<State>} */
        const { answer: now } = await ask(`/api/state?seen=${seen}`);
        if (now.version !== seen && state.version === seen) {
          notice("Changed in another window", { lines: now.news.map(capital) });
          await update(now);
        }
      }
    } catch {
      polling.lost ||= document.body.appendChild(el("div", { id: "lost", role: "alert" }, "The server has ended or cannot be reached. Start it again with the same port, and this page goes on."));
    }
  }
  clearTimeout(polling.timer);
  polling.timer = setTimeout(poll, POLL);
}

// ---- what is shown --------------------------------------------------------------------------------------------

/** @returns {Place} */
function route() {
  const parts = location.hash.replace(/^#\/?/, "").split("/");
  /** @type {Place} */
  const at = { group: null, order: "typical", image: null, search: parts.at(-1) === "search", wrong: "" };
  /** @param {string | undefined} text */
  const number = (text) => (/^\d{1,9}$/.test(text ?? "") ? Number(text) : null);
  if (parts[0] === "cluster" || parts[0] === "group") { // as 0.1 called it
    at.group = number(parts[1]);
    if (at.group === null) at.wrong = `There is no cluster ${shortened(parts[1])}`;
    if (parts[2] in ORDERS) at.order = /** @type {Order} */ (parts[2]);
  } else if (!["", "image", "search"].includes(parts[0])) at.wrong = `There is no ${shortened(parts.join("/"))} here`;
  const image = parts.indexOf("image");
  if (image >= 0) at.image = number(parts[image + 1]) ?? -1;
  return at;
}

/** @param {string | undefined} text of an address, which may be anything */
function shortened(text = "") {
  try { text = decodeURIComponent(text); } catch { /* it is shown as it is */ }
  return text.length > 40 ? `${text.slice(0, 40)} …` : text;
}

const base = (at = route()) => (at.group !== null ? `#/cluster/${at.group}/${at.order}` : "#/");
/** What is shown before the list of `at`. @param {string} what */
const before = (what, at = route()) => `${base(at).replace(/\/$/, "")}/${what}`;
/** @param {number} row */
const imageHref = (row) => before(`image/${row}`);

async function render(fresh = false) {
  const at = route();
  if (at.wrong) {
    notice(at.wrong);
    return location.replace("#/");
  }
  if (at.group !== null && !state.groups.some((g) => g.group === at.group)) {
    if (heirs.has(at.group)) return location.replace(`#/cluster/${heirs.get(at.group)}`);
    notice(`Cluster ${at.group} is no more`);
    return location.replace("#/");
  }
  if (at.group !== null) await showGroup({ ...at, group: at.group }, fresh);
  else if (fresh || view || !main.querySelector(".cards")) showGroups();
  await showImage(at, fresh);
  showBar();
}

/**
 * Draws a part of the page anew; the keyboard's focus stays where it was in it, or goes to `otherwise` if that is gone.
 * @param {HTMLElement} part
 * @param {HTMLElement} otherwise
 * @param {() => void} work
 * @param {string} [key] of what had the focus, where that is gone already
 */
function keepFocus(part, otherwise, work, key = focusIn(part)) {
  work();
  if (key === undefined) return;
  const again = part.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (again instanceof HTMLElement && !part.hidden) again.focus({ preventScroll: true });
  if (!part.contains(document.activeElement) || part.hidden) otherwise.focus({ preventScroll: true });
}

/** What has the focus in a part of the page, by its key, "" if it has none; undefined if nothing has. @param {HTMLElement} part */
function focusIn(part) {
  const active = document.activeElement;
  if (!(active instanceof HTMLElement) || !part.contains(active)) return undefined;
  return active.dataset.key ?? "";
}

function leaveGroup() {
  if (!view) return;
  view.grid.remove();
  view = null;
}

function showGroups() {
  const came = view && !byId("top").contains(document.activeElement) ? `group ${view.group}` : focusIn(main);
  leaveGroup();
  const [, compare] = SORTS[kept("sort", "number")] || SORTS.number;
  const sort = select(SORTS, kept("sort", "number"), "Order of clusters", (value) => { keep("sort", value); showGroups(); });
  const top = main.scrollTop;
  document.title = `${state.run} · jaxclust`;
  const table = el("a", { class: "button", href: "/api/clusters.csv", download: "clusters.csv", "data-key": "table", title: "The cluster of every image, as a table" }, "CSV");
  const folders = state.sorted === null ? null
    : el("button", { "data-key": "folders", title: "A folder for each cluster, with links to its images", onclick: askFolder }, "Folders …");
  keepFocus(main, main, () => main.replaceChildren(
    el("div", { class: "head" }, el("h1", {}, "Clusters"), el("span", { class: "fill" }), ...(folders ? [folders] : []), table, sort),
    el("div", { class: "cards" }, ...[...state.groups].sort(compare).map((group) => card(group, chosen, showBar, renameGroup)))), came);
  main.scrollTop = places.get("groups") ?? top;
}

/** @param {Place & { group: number }} at @param {boolean} again */
async function showGroup(at, again) {
  const group = state.groups.find((g) => g.group === at.group);
  if (!group) return;
  const there = () => (view?.group === at.group && view.order === at.order ? view : null);
  if (there() && !again) return;
  /** @type {Answered<Listed> | null} */
  const got = await attempt(() => ask(`/api/group/${at.group}?order=${at.order}`));
  if (got === null || base() !== base(at)) return;
  const listed = got.answer;
  const same = there(), focused = focusIn(main);
  let shown = same;
  if (!shown) {
    /** @type {Set<number>} */
    const selected = view?.group === at.group ? view.grid.selected : new Set();
    leaveGroup();
    main.replaceChildren();
    const size = Number(kept("size", innerWidth < 600 || Math.max(state.sheet.width, state.sheet.height) <= 16 ? "64" : "96"));
    const grid = new Grid(main, { rows: [], confidence: [], placed: [] }, SIZES.includes(size) ? size : 96, {
      open: (row) => { location.hash = imageHref(row).slice(1); },
      select: () => view && showBar(),
    });
    view = shown = { group: at.group, order: at.order, grid };
    grid.selected = selected;
  }
  const { grid } = shown, head = groupHead(group, at);
  if (!same) keepFocus(main, main, () => main.replaceChildren(head, grid.root), focused);
  else if (grid.root.contains(document.activeElement)) main.firstElementChild?.replaceWith(head);
  else keepFocus(main, main, () => main.firstElementChild?.replaceWith(head));
  grid.top = head.offsetHeight;
  const top = same ? main.scrollTop : places.get(base(at)) ?? 0;
  if (!same) grid.root.style.height = "1e7px"; // so that the place can be scrolled to
  const selected = grid.selected;
  grid.list(listed);
  if (!same && selected.size) {
    grid.selected = new Set(listed.rows.filter((row) => selected.has(row)));
    grid.clear();
    grid.draw();
  }
  main.scrollTop = top;
  grid.root.classList.toggle("sureness", at.order === "uncertain");
  document.title = `${title(group)} · ${state.run}`;
}

/** @param {Cluster} group @param {Place} at */
function groupHead(group, at) {
  /** @param {number} by */
  const grow = (by) => () => {
    if (!view) return;
    const size = SIZES[Math.min(Math.max(SIZES.indexOf(view.grid.size) + by, 0), SIZES.length - 1)];
    keep("size", String(size));
    view.grid.resize(size);
  };
  return el("div", { class: "group head" },
    el("a", { class: "back", href: "#/", "aria-label": "All clusters", title: "All clusters (Esc)", "data-key": "back" }, "‹"),
    el("span", { class: "titled" }, name(group, "h1"),
      el("button", { class: "quiet", "data-key": "rename", title: "Rename (r)", "aria-label": "Rename", onclick: () => renameGroup(group) }, "✎")),
    el("span", { class: "hint" }, `${count(group.size, "image")} · ${percent(group.confidence)} sure`),
    el("span", { class: "fill" }),
    select(ORDERS, at.order, "Order of images",
      (value) => location.replace(`#/cluster/${at.group}/${value}`)),
    el("span", { class: "pair" }, el("button", { "data-key": "smaller", "aria-label": "Smaller", title: "Smaller images", onclick: grow(-1) }, "−"),
      el("button", { "data-key": "larger", "aria-label": "Larger", title: "Larger images", onclick: grow(1) }, "+")),
    el("button", { "data-key": "split", title: "Split (s)", onclick: () => splitGroup(group), disabled: group.size < 2 }, "Split …"),
    el("button", { "data-key": "merge", onclick: () => mergeInto(group), disabled: state.groups.length < 2 }, "Merge …"),
    group.size ? null : el("p", { class: "hint" }, "There is no image in this cluster now."));
}

/** @param {Cluster} group */
const renameGroup = (group) => dialogs.rename(state, group, decide);
/** @param {Cluster} group */
const splitGroup = (group) => dialogs.split(state, group, decide, conflict);

/** @param {Cluster} group */
function mergeInto(group) {
  dialogs.pick(state, `Merge ${title(group)} with …`, group.group, (_, other) => dialogs.merge(state, [group, other], mergeGroups));
}

function showBar() {
  const tile = view?.grid.root.querySelector("[tabindex='0']");
  keepFocus(bar, tile instanceof HTMLElement ? tile : main, drawBar);
}

function drawBar() {
  const grid = view?.grid;
  const many = grid ? grid.selected.size : chosen.size;
  bar.hidden = !many;
  if (!many) return;
  const clear = el("button", { onclick: clearSelection, title: "Esc", "data-key": "clear" }, "Clear");
  const said = el("span", {}, `${count(many, view ? "image" : "cluster")} selected`);
  if (grid) {
    bar.replaceChildren(said, el("button", { class: "primary", onclick: moveSelected, title: "m", "data-key": "move" }, "Move to …"),
      el("button", { onclick: newOfSelected, title: "n", "data-key": "new" }, "New cluster …"),
      el("button", { onclick: () => grid.all(true), title: "Ctrl+A", "data-key": "all" }, "All"), clear);
  } else {
    const groups = state.groups.filter((group) => chosen.has(group.group));
    bar.replaceChildren(said, el("button", { class: "primary", disabled: many < 2, "data-key": "merge", onclick: () => dialogs.merge(state, groups, mergeGroups) }, "Merge …"), clear);
  }
}

function clearSelection() {
  if (view) view.grid.all(false);
  else { chosen.clear(); showGroups(); }
  showBar();
}

/** @param {number[]} rows @param {number | null} from the cluster that they are in, where that is one */
function moveRows(rows, from) {
  const what = count(rows.length, "image");
  dialogs.pick(state, `Move ${what} to …`, from, async (seen, group) => {
    if (!await decide(seen, { do: "move", rows, group: group.group })) return;
    unpick();
    notice(`${what} moved to ${title(group)}`);
  });
}

/** @param {number[]} rows */
function newOf(rows) {
  dialogs.create(state, rows, async (seen, entry) => {
    if (!await decide(seen, entry)) return;
    unpick();
    const made = state.groups.reduce((a, b) => (b.group > a.group ? b : a)); // its number is the highest that there is
    notice(`${title(made)} is new`, { lines: [count(rows.length, "image")], link: ["Show it", `#/cluster/${made.group}`] });
  });
}

function moveSelected() {
  if (view) moveRows([...view.grid.selected], view.group);
}

function newOfSelected() {
  if (view) newOf([...view.grid.selected]);
}

function askFolder() {
  dialogs.folders(folder || (state.sorted ?? ""), async (into, copy) => {
    const got = await waitFor("Sorting the images …", () => inTurn(() => attempt(() => post("/api/sort", { seen: state.version, into, copy }))));
    if (!got) return;
    if (got.changed) return conflict(/** @type {State} */ (got.answer));
    const made = /** @type {Sorted} */ (got.answer);
    folder = made.into;
    const what = [made.links && count(made.links, "link"), made.files && count(made.files, "file")].filter(Boolean);
    notice(`Sorted: ${what.join(" and ") || "no images"}`, { lasting: true, lines: [made.into] });
  });
}

/**
 * Says what is being waited for.
 * @template T
 * @param {string} text
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
async function waitFor(text, work) {
  const waiting = el("div", { id: "waiting", role: "status" }, text);
  document.body.append(waiting);
  try {
    return await work();
  } finally {
    waiting.remove();
  }
}

// ---- one image ------------------------------------------------------------------------------------------------

/** @param {Place} at @param {boolean} again */
async function showImage(at, again) {
  const wanted = at.image !== null ? `image ${at.image}` : at.search && result ? "search" : null;
  if (!wanted) {
    if (at.search) return location.replace(base(at));
    const shown = open;
    open = null;
    shown?.dialog.close();
    if (shown && shown.began !== "search" && shown.row !== null && view) {
      const i = view.grid.rows.indexOf(shown.row);
      if (i >= 0) view.grid.go(i);
    }
    return;
  }
  if (open?.wanted === wanted && !again) return;
  if (at.image !== null && !(at.image >= 0 && at.image < state.images)) return location.replace(base(at));
  const row = at.image;
  const picks = { rows: open?.wanted === wanted ? open.picked : new Set(), changed: showActs };
  /** @type {{ node: HTMLElement, group: number | null } | null} */
  let shown = null;
  if (row !== null) shown = await attempt(() => look.image(state, row, imageHref, picks));
  else if (result) shown = { node: look.found(state, result.url, result.answer, imageHref, picks), group: null };
  if (!shown || JSON.stringify(route()) !== JSON.stringify(at)) return;
  const dialog = open?.dialog ?? dialogs.modal("looking", "Image");
  if (!open) {
    dialog.addEventListener("close", () => {
      if (open?.dialog !== dialog) return;
      open = null;
      location.hash = base().slice(1);
    });
  }
  open = { dialog, began: open?.began ?? wanted, wanted, row, group: shown.group, picked: picks.rows };
  const close = el("button", { class: "close", "aria-label": "Close", title: "Esc", "data-key": "close", onclick: () => dialog.close() }, "×");
  const i = view && at.image !== null ? view.grid.rows.indexOf(at.image) : -1;
  const steps = i < 0 ? [] : [step(i - 1, "Previous", "‹"), step(i + 1, "Next", "›")];
  const { node } = shown;
  node.querySelector(".large")?.append(...steps);
  keepFocus(dialog, dialog, () => { dialog.replaceChildren(close, node); showActs(); }, focusIn(dialog) ?? "");
}

/** What can be done with the open image and what is selected beside it. */
function showActs() {
  const box = open?.dialog.querySelector(".side .acts");
  if (!open || !(box instanceof HTMLElement)) return;
  const { row, picked } = open, rows = openRows();
  const said = row === null ? `${count(picked.size, "image")} selected` : picked.size ? `This and ${picked.size} more` : "";
  keepFocus(box, open.dialog, () => box.replaceChildren(
    el("button", { class: "primary", "data-key": "move", title: "m", disabled: !rows.length, onclick: moveOpen }, "Move to …"),
    el("button", { "data-key": "new", title: "n", disabled: !rows.length, onclick: newOfOpen }, "New cluster …"),
    ...(picked.size ? [el("button", { "data-key": "clear", onclick: () => { unpick(); render(true); } }, "Clear")] : []),
    el("span", { class: "hint" }, said)));
}

/** @returns {number[]} */
const openRows = () => (open ? [...new Set([...(open.row === null ? [] : [open.row]), ...open.picked])] : []);

function unpick() {
  open?.picked.clear();
  for (const node of open?.dialog.querySelectorAll("[data-picked]") ?? []) node.removeAttribute("data-picked");
  showActs();
}

/** @param {number} i @param {string} label @param {string} text */
function step(i, label, text) {
  const there = view !== null && i >= 0 && i < view.grid.rows.length;
  return el("button", { class: `step ${label.toLowerCase()}`, "aria-label": label, "data-key": label, disabled: !there, onclick: () => turn(i) }, text);
}

/** @param {number} i */
function turn(i) {
  if (view) location.replace(imageHref(view.grid.rows[i]));
}

function moveOpen() {
  const rows = openRows();
  if (rows.length) moveRows(rows, open && !open.picked.size ? open.group : null);
}

function newOfOpen() {
  const rows = openRows();
  if (rows.length) newOf(rows);
}

/** @param {File} file */
async function searchWith(file) {
  if (!state?.search) return notice("This run cannot be searched with an image.");
  const got = await waitFor("Showing your image to the network … the first time takes a while.", () => attempt(() => search(file)));
  if (!got) return;
  if (result) URL.revokeObjectURL(result.url);
  result = { url: URL.createObjectURL(file), answer: got.answer };
  open?.picked.clear();
  if (route().search) showImage(route(), true);
  else location.hash = before("search").slice(1);
}

// ---- what the user does ---------------------------------------------------------------------------------------

addEventListener("keydown", (e) => {
  const target = e.target instanceof Element ? e.target : null;
  if (!state || target?.matches("input:not([type=checkbox]), select, textarea")) return;
  const modal = document.querySelector("dialog[open]:not(.looking)");
  if (modal || e.altKey) return;
  const group = state.groups.find((g) => g.group === view?.group);
  const under = target?.closest("[data-group]");
  const named = group || (under && state.groups.find((g) => g.group === Number(under.getAttribute("data-group"))));
  if (e.ctrlKey || e.metaKey) {
    if (e.key !== "z" || e.shiftKey) return;
    undo();
  } else if (e.key === "?") dialogs.keys();
  else if (open && view && (e.key === "ArrowLeft" || e.key === "ArrowRight")) {
    const at = open.row === null ? -1 : view.grid.rows.indexOf(open.row), i = at + (e.key === "ArrowLeft" ? -1 : 1);
    if (at >= 0 && i >= 0 && i < view.grid.rows.length) turn(i);
  } else if (e.key === "m" && open) moveOpen();
  else if (e.key === "n" && open) newOfOpen();
  else if (open) return;
  else if (e.key === "m" && view?.grid.selected.size) moveSelected();
  else if (e.key === "n" && view?.grid.selected.size) newOfSelected();
  else if (e.key === "r" && named) renameGroup(named);
  else if (e.key === "s" && group) splitGroup(group);
  else if (e.key === "Escape" && (view ? view.grid.selected.size : chosen.size)) clearSelection();
  else if (e.key === "Escape" && view) location.hash = "/";
  else if (e.key.startsWith("Arrow") && !view && !e.shiftKey) return stepCards(e, main);
  else return;
  e.preventDefault();
});

main.addEventListener("scroll", () => places.set(view ? base() : "groups", main.scrollTop), { passive: true });
addEventListener("hashchange", () => state && render());
document.addEventListener("visibilitychange", () => !document.hidden && poll());
undoing.addEventListener("click", undo);
byId("help").addEventListener("click", dialogs.keys);
byId("search").addEventListener("click", () => chooser.click());
chooser.addEventListener("change", () => {
  const [file] = chooser.files ?? [];
  chooser.value = "";
  if (file) searchWith(file);
});
takeDrops(byId("drop"), searchWith);
byId("notices").popover = "manual";

/** @type {Answered<State> | null} */
const start = await attempt(() => ask("/api/state"));
if (start) {
  byId("search").hidden = !start.answer.search;
  await update(start.answer);
  polling.timer = setTimeout(poll, POLL);
}
