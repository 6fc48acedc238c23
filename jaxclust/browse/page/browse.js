// The page: what it shows follows from its address (`#/`, `#/group/3/typical`, `.../image/17`) and the groups' state.

import { ask, post, Refused, search } from "./api.js";
import { card, SORTS, stepCards } from "./cards.js";
import * as dialogs from "./dialogs.js";
import { takeDrops } from "./drop.js";
import { Grid } from "./grid.js";
import * as look from "./look.js";
import { count, el, keep, kept, name, percent, select, setSheet, title } from "./pieces.js";

const POLL = 2000; // milliseconds between questions whether another window has decided something
const ORDERS = { typical: "Most certain first", uncertain: "Least certain first", file: "By file" };
const SIZES = [48, 64, 96, 128, 192];

const $ = (id) => document.getElementById(id);
const main = $("main"), bar = $("bar");
let state = null; // what /api/state says
let chosen = new Set(); // groups selected in the overview
let view = null; // of a group: {group, order, grid}
let open = null; // a dialog with an image: {row, dialog, group}
let result = null; // of a search: {url, answer}
let queue = Promise.resolve(); // of this window's decisions
const mine = new Map(); // versions that this window's decisions have followed -> the version that they led to
const heirs = new Map(); // groups that this window has merged -> into which
const places = new Map(); // where each list was scrolled to

// ---- notices --------------------------------------------------------------------------------------------------

function notice(text, { lasting = false, lines = [] } = {}) {
  const node = el("div", { class: lasting ? "notice lasting" : "notice", role: lasting ? "alert" : "status" },
    el("div", {}, el("strong", {}, text), ...lines.map((line) => el("p", { dir: "auto" }, line))),
    el("button", { "aria-label": "Dismiss", onclick: () => node.remove() }, "×"));
  $("notices").append(node);
  // A modal dialog covers the page, so notices are shown above it.
  if ($("notices").matches(":popover-open")) $("notices").hidePopover();
  $("notices").showPopover();
  if (!lasting) setTimeout(() => node.remove(), 6000);
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// ---- deciding -------------------------------------------------------------------------------------------------

async function attempt(question) {
  try {
    return await question();
  } catch (e) {
    if (!(e instanceof Refused)) throw e;
    notice(capital(e.message), { lasting: true });
    return null;
  }
}

// One thing after another; what was begun while this window's own last decision was under way has seen that, too.
function inTurn(work) {
  const done = queue.then(work);
  queue = done.catch(() => {});
  return done;
}

const decide = (seen, entry) => inTurn(() => send(mine.get(seen) ?? seen, { entry }, "/api/decide"));

async function send(seen, more, path) {
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

function conflict(answer) {
  notice("Not saved: somebody else has changed the groups. Look again, and repeat it if you still want it.",
    { lasting: true, lines: answer.news.map(capital) });
  update(answer);
}

const undo = () => inTurn(async () => {
  const { last, version } = state;
  if (last && (await send(version, {}, "/api/undo"))) notice("Undone", { lines: [capital(last)] });
});

async function mergeGroups(seen, entry) {
  const [into, ...others] = entry.groups;
  for (const group of others) heirs.set(group, into);
  if (await decide(seen, entry)) {
    chosen.clear();
    if (!view) showGroups();
  }
  showBar();
}

async function update(answer) {
  state = answer;
  setSheet(state.sheet);
  $("run").textContent = state.run;
  $("about").textContent = `${count(state.images, "image")} · ${count(state.groups.length, "group")} · step ${state.step.toLocaleString("en")}`;
  chosen = new Set([...chosen].filter((group) => state.groups.some((g) => g.group === group)));
  $("undo").disabled = !state.last;
  $("undo").title = state.last ? `Undo (Ctrl+Z): ${state.last}` : "Nothing has been decided";
  await render(true);
}

async function poll() {
  if (!document.hidden && state) {
    const seen = state.version;
    try {
      const { answer } = await ask("/api/version");
      if (poll.lost) { poll.lost.remove(); poll.lost = null; }
      if (answer.server !== state.sheet.token) return location.reload(); // another server, perhaps of another run
      if (answer.version !== seen && state.version === seen) {
        const { answer: now } = await ask(`/api/state?seen=${seen}`);
        if (now.version !== seen && state.version === seen) {
          notice("Changed in another window", { lines: now.news.map(capital) });
          await update(now);
        }
      }
    } catch {
      poll.lost ||= document.body.appendChild(el("div", { id: "lost", role: "alert" }, "The server has ended or cannot be reached. Start it again with the same port, and this page goes on."));
    }
  }
  clearTimeout(poll.timer);
  poll.timer = setTimeout(poll, POLL);
}

// ---- what is shown --------------------------------------------------------------------------------------------

function route() {
  const parts = location.hash.replace(/^#\/?/, "").split("/");
  const at = { group: null, order: "typical", image: null, search: parts[0] === "search" };
  if (parts[0] === "group") {
    at.group = Number(parts[1]);
    if (parts[2] in ORDERS) at.order = parts[2];
  }
  const image = parts.indexOf("image");
  if (image >= 0) at.image = Number(parts[image + 1]);
  return at;
}

const base = (at = route()) => (at.group !== null ? `#/group/${at.group}/${at.order}` : at.search ? "#/search" : "#/");
const imageHref = (row) => `${base().replace("#/search", "#/")}${base().endsWith("/") || base() === "#/search" ? "" : "/"}image/${row}`;

async function render(fresh = false) {
  const at = route();
  if (at.group !== null && !state.groups.some((g) => g.group === at.group)) {
    if (heirs.has(at.group)) return location.replace(`#/group/${heirs.get(at.group)}`);
    notice(`Group ${at.group} is no more`);
    return location.replace("#/");
  }
  if (at.group !== null) await showGroup(at, fresh);
  else if (fresh || view || !main.querySelector(".cards")) showGroups();
  await showImage(at, fresh);
  showBar();
}

function keepFocus(work) {
  const key = document.activeElement?.dataset?.key;
  work();
  if (key) main.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

function leaveGroup() {
  if (!view) return;
  view.grid.remove();
  view = null;
}

function showGroups() {
  leaveGroup();
  const [, compare] = SORTS[kept("sort", "number")] || SORTS.number;
  const sort = select(SORTS, kept("sort", "number"), "Order of groups", (value) => { keep("sort", value); showGroups(); });
  const top = main.scrollTop;
  document.title = `${state.run} · jaxclust`;
  keepFocus(() => main.replaceChildren(
    el("div", { class: "head" }, el("h1", {}, "Groups"), el("span", { class: "fill" }), sort),
    el("div", { class: "cards" }, ...[...state.groups].sort(compare).map((group) => card(group, chosen, showBar, renameGroup)))));
  main.scrollTop = places.get("groups") ?? top;
}

async function showGroup(at, again) {
  const group = state.groups.find((g) => g.group === at.group);
  const same = view && view.group === at.group && view.order === at.order;
  if (same && !again) return;
  const got = await attempt(() => ask(`/api/group/${at.group}?order=${at.order}`));
  if (got === null || base() !== base(at)) return;
  const listed = got.answer;
  if (!same) {
    const selected = view?.group === at.group ? view.grid.selected : new Set();
    leaveGroup();
    main.replaceChildren();
    const size = Number(kept("size", innerWidth < 600 || Math.max(...state.shape.slice(0, 2)) <= 16 ? 64 : 96));
    const grid = new Grid(main, { rows: [], confidence: [], placed: [] }, SIZES.includes(size) ? size : 96, {
      open: (row) => { location.hash = imageHref(row).slice(1); },
      select: () => view && showBar(),
    });
    view = { group: at.group, order: at.order, grid };
    grid.selected = selected;
  }
  const head = groupHead(group, at);
  if (same) keepFocus(() => main.firstElementChild.replaceWith(head));
  else main.replaceChildren(head, view.grid.root);
  view.grid.top = head.offsetHeight;
  const top = same ? main.scrollTop : places.get(base(at)) ?? 0;
  if (!same) view.grid.root.style.height = "1e7px"; // so that the place can be scrolled to
  const selected = view.grid.selected;
  view.grid.list(listed);
  if (!same && selected.size) { view.grid.selected = new Set(listed.rows.filter((row) => selected.has(row))); view.grid.clear(); view.grid.draw(); }
  main.scrollTop = top;
  view.grid.root.classList.toggle("sureness", at.order === "uncertain");
  document.title = `${title(group)} · ${state.run}`;
}

function groupHead(group, at) {
  const grow = (by) => () => {
    const size = SIZES[Math.min(Math.max(SIZES.indexOf(view.grid.size) + by, 0), SIZES.length - 1)];
    keep("size", size);
    view.grid.resize(size);
  };
  return el("div", { class: "group head" },
    el("a", { class: "back", href: "#/", "aria-label": "All groups", title: "All groups (Esc)" }, "‹"),
    el("span", { class: "titled" }, name(group, "h1"),
      el("button", { class: "quiet", "data-key": "rename", title: "Rename (r)", "aria-label": "Rename", onclick: () => renameGroup(group) }, "✎")),
    el("span", { class: "hint" }, `${count(group.size, "image")} · ${percent(group.confidence)} sure`),
    el("span", { class: "fill" }),
    select(Object.fromEntries(Object.entries(ORDERS).map(([k, v]) => [k, [v]])), at.order, "Order of images",
      (value) => location.replace(`#/group/${at.group}/${value}`)),
    el("span", { class: "pair" }, el("button", { "data-key": "smaller", "aria-label": "Smaller", title: "Smaller images", onclick: grow(-1) }, "−"),
      el("button", { "data-key": "larger", "aria-label": "Larger", title: "Larger images", onclick: grow(1) }, "+")),
    el("button", { "data-key": "split", title: "Split (s)", onclick: () => splitGroup(group), disabled: group.size < 2 }, "Split …"),
    el("button", { "data-key": "merge", onclick: () => mergeInto(group), disabled: state.groups.length < 2 }, "Merge …"),
    group.size ? null : el("p", { class: "hint" }, "There is no image in this group now."));
}

const renameGroup = (group) => dialogs.rename(state, group, decide);
const splitGroup = (group) => dialogs.split(state, group, decide, conflict);

function mergeInto(group) {
  dialogs.pick(state, `Merge ${title(group)} with …`, group.group, (_, other) => dialogs.merge(state, [group, other], mergeGroups));
}

function showBar() {
  const rows = view ? view.grid.selected : new Set();
  const many = view ? rows.size : chosen.size;
  bar.hidden = !many;
  if (!many) return;
  const clear = el("button", { onclick: clearSelection, title: "Esc" }, "Clear");
  const said = el("span", {}, `${count(many, view ? "image" : "group")} selected`);
  if (view) {
    bar.replaceChildren(said, el("button", { class: "primary", onclick: moveSelected, title: "m" }, "Move to …"),
      el("button", { onclick: () => view.grid.all(true), title: "Ctrl+A" }, "All"), clear);
  } else {
    const groups = state.groups.filter((group) => chosen.has(group.group));
    bar.replaceChildren(said, el("button", { class: "primary", disabled: many < 2, onclick: () => dialogs.merge(state, groups, mergeGroups) }, "Merge …"), clear);
  }
}

function clearSelection() {
  if (view) view.grid.all(false);
  else { chosen.clear(); showGroups(); }
  showBar();
}

function moveSelected() {
  const rows = [...view.grid.selected];
  dialogs.pick(state, `Move ${count(rows.length, "image")} to …`, view.group, async (seen, group) => {
    if (await decide(seen, { do: "move", rows, group: group.group })) notice(`${capital(count(rows.length, "image"))} moved to ${title(group)}`);
  });
}

// ---- one image ------------------------------------------------------------------------------------------------

async function showImage(at, again) {
  const wanted = at.image !== null ? `image ${at.image}` : at.search && result ? "search" : null;
  if (!wanted) {
    if (at.search) return location.replace("#/");
    const shown = open;
    open = null;
    shown?.dialog.close();
    if (shown && view) {
      const i = view.grid.rows.indexOf(shown.row);
      if (i >= 0) view.grid.go(i);
    }
    return;
  }
  if (open?.wanted === wanted && !again) return;
  if (at.image !== null && !(at.image >= 0 && at.image < state.images)) return location.replace(base(at));
  let shown;
  if (at.image !== null) shown = await attempt(() => look.image(state, at.image, imageHref));
  else shown = { node: look.found(state, result.url, result.answer, imageHref), group: null };
  if (!shown || JSON.stringify(route()) !== JSON.stringify(at)) return;
  if (!open) {
    open = { dialog: dialogs.modal("looking", "Image") };
    const mine = open;
    mine.dialog.addEventListener("close", () => { if (open === mine) { open = null; location.hash = base({ ...route(), search: false }).slice(1); } });
  }
  Object.assign(open, { wanted, row: at.image, group: shown.group });
  const close = el("button", { class: "close", "aria-label": "Close", title: "Esc", onclick: () => open.dialog.close() }, "×");
  const i = view && at.image !== null ? view.grid.rows.indexOf(at.image) : -1;
  const steps = i < 0 ? [] : [step(i - 1, "Previous", "‹"), step(i + 1, "Next", "›")];
  shown.node.querySelector(".large").append(...steps);
  open.dialog.replaceChildren(close, shown.node);
  shown.node.querySelector("[data-act=move]")?.addEventListener("click", moveOpen);
  open.dialog.focus();
}

function step(i, label, text) {
  const there = i >= 0 && i < view.grid.rows.length;
  return el("button", { class: `step ${label.toLowerCase()}`, "aria-label": label, disabled: !there, onclick: () => turn(i) }, text);
}

const turn = (i) => location.replace(imageHref(view.grid.rows[i]));

function moveOpen() {
  const { row, group } = open;
  dialogs.pick(state, `Move image ${row} to …`, group, async (seen, to) => {
    if (await decide(seen, { do: "move", rows: [row], group: to.group })) notice(`Moved to ${title(to)}`);
  });
}

async function searchWith(file) {
  if (!state?.search) return notice("This run cannot be searched with an image.");
  const waiting = document.body.appendChild(el("div", { id: "waiting", role: "status" }, "Showing your image to the network … the first time takes a while."));
  const got = await attempt(() => search(file));
  waiting.remove();
  if (!got) return;
  if (result) URL.revokeObjectURL(result.url);
  result = { url: URL.createObjectURL(file), answer: got.answer };
  if (location.hash === "#/search") showImage(route(), true);
  else location.hash = "/search";
}

// ---- what the user does ---------------------------------------------------------------------------------------

addEventListener("keydown", (e) => {
  if (!state || e.target.matches("input:not([type=checkbox]), select, textarea")) return;
  const modal = document.querySelector("dialog[open]:not(.looking)");
  if (modal || e.altKey) return;
  const group = view && state.groups.find((g) => g.group === view.group);
  const under = e.target.closest?.("[data-group]");
  const named = group || (under && state.groups.find((g) => g.group === Number(under.dataset.group)));
  if (e.ctrlKey || e.metaKey) {
    if (e.key !== "z" || e.shiftKey) return;
    undo();
  } else if (e.key === "?") dialogs.keys();
  else if (open && view && (e.key === "ArrowLeft" || e.key === "ArrowRight")) {
    const i = view.grid.rows.indexOf(open.row) + (e.key === "ArrowLeft" ? -1 : 1);
    if (open.row !== null && view.grid.rows.includes(open.row) && i >= 0 && i < view.grid.rows.length) turn(i);
  } else if (e.key === "m" && open && open.row !== null) moveOpen();
  else if (open) return;
  else if (e.key === "m" && view?.grid.selected.size) moveSelected();
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
$("undo").addEventListener("click", undo);
$("help").addEventListener("click", dialogs.keys);
$("search").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { const [file] = $("file").files; $("file").value = ""; if (file) searchWith(file); });
takeDrops($("drop"), searchWith);
$("notices").popover = "manual";

const start = await attempt(() => ask("/api/state"));
if (start) {
  $("search").hidden = !start.answer.search;
  await update(start.answer);
  poll.timer = setTimeout(poll, POLL);
}
