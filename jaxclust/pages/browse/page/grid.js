// @ts-check
// All images of a cluster: of 100,000 only those in sight exist. Sheets of thumbnails come as they are scrolled to.

/** @import { Listed } from "./api.js" */

import { el, perSheet, ratio, sheetUrl, show } from "./pieces.js";

const GAP = 4;
const AHEAD = 400; // pixels above and below the window that are kept ready
const LOADING = 4; // sheets asked for at once; what has been scrolled past is not asked for any more
const LONG_PRESS = 450; // milliseconds

export class Grid {
  /**
   * @param {HTMLElement} scroller
   * @param {Listed} listed
   * @param {number} size pixels of a tile, about
   * @param {{ open: (row: number) => void, select: (rows: Set<number>) => void }} on
   */
  constructor(scroller, listed, size, on) {
    this.scroller = scroller;
    this.on = on;
    this.size = size;
    /** @type {number[]} */
    this.rows = [];
    /** @type {number[]} */
    this.confidence = [];
    /** @type {Set<number>} */
    this.placed = new Set();
    /** @type {Set<number>} */
    this.selected = new Set();
    /** @type {Map<number, HTMLElement>} */
    this.tiles = new Map(); // index -> element
    /** @type {WeakMap<Element, number>} */
    this.indices = new WeakMap(); // and back
    /** @type {Map<number, string>} */
    this.sheets = new Map(); // chunk -> address, once it is loaded
    /** @type {Set<string>} */
    this.loading = new Set();
    /** @type {number[]} */
    this.wanted = []; // chunks, the nearest to the middle of the window first
    this.columns = this.tile = this.line = this.first = this.top = 0;
    this.refocus = this.pressed = false;
    this.focused = 0;
    this.anchor = 0;
    this.root = el("div", { class: "grid", role: "listbox", "aria-multiselectable": "true", "aria-label": "Images" });
    this.root.addEventListener("click", (e) => this.click(e));
    this.root.addEventListener("keydown", (e) => this.key(e));
    this.root.addEventListener("pointerdown", (e) => this.press(e));
    this.root.addEventListener("contextmenu", (e) => {
      if (e instanceof PointerEvent && e.pointerType === "touch") e.preventDefault();
    });
    this.root.addEventListener("focusin", (e) => {
      const i = this.indexOf(e.target);
      if (i !== undefined) this.mark(i);
    });
    this.frame = 0;
    this.redraw = () => { this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.draw(); }); };
    scroller.addEventListener("scroll", this.redraw, { passive: true });
    this.watch = new ResizeObserver(() => this.layout());
    this.watch.observe(this.root);
    this.list(listed);
  }

  /** The place of the image that an event happened to. @param {EventTarget | null} target */
  indexOf(target) {
    const tile = target instanceof Element && target.closest(".tile");
    return tile ? this.indices.get(tile) : undefined;
  }

  remove() {
    this.scroller.removeEventListener("scroll", this.redraw);
    this.watch.disconnect();
    this.root.remove();
  }

  /** Shows another list in the same place; what is selected stays so where it is still there. @param {Listed} listed */
  list({ rows, confidence, placed }) {
    const stays = rows.indexOf(this.rows[this.focused]); // the focus stays with its image, or with its place
    this.rows = rows;
    this.confidence = confidence;
    this.placed = new Set(placed);
    const there = new Set(rows);
    this.selected = new Set([...this.selected].filter((row) => there.has(row)));
    this.focused = stays >= 0 ? stays : Math.min(this.focused, Math.max(rows.length - 1, 0));
    this.sheets.clear();
    this.clear();
    this.layout();
    this.on.select(this.selected);
  }

  /** @param {number} size */
  resize(size) {
    const middle = this.first;
    this.size = size;
    this.layout();
    this.reveal(middle, "start");
  }

  clear() {
    const active = this.root.contains(document.activeElement);
    for (const tile of this.tiles.values()) tile.remove();
    this.tiles.clear();
    this.refocus = active;
  }

  layout() {
    const width = this.root.clientWidth;
    if (!width) return;
    this.columns = Math.max(1, Math.round((width + GAP) / (this.size + GAP)));
    this.tile = (width - (this.columns - 1) * GAP) / this.columns;
    this.line = this.tile * ratio() + GAP;
    this.root.style.setProperty("--t", `${this.tile}px`);
    this.root.style.height = `${Math.ceil(this.rows.length / this.columns) * this.line}px`;
    for (const [i, tile] of this.tiles) this.place(tile, i);
    this.draw();
  }

  /** @param {HTMLElement} tile @param {number} i */
  place(tile, i) {
    const x = (i % this.columns) * (this.tile + GAP);
    tile.style.transform = `translate(${x}px, ${Math.floor(i / this.columns) * this.line}px)`;
  }

  draw() {
    if (!this.columns) return;
    const top = this.scroller.scrollTop - this.root.offsetTop;
    const bottom = top + this.scroller.clientHeight;
    /** @param {number} y */
    const index = (y) => Math.min(this.rows.length, Math.max(0, Math.floor(y / this.line)) * this.columns);
    this.first = index(top);
    const from = index(top - AHEAD), to = Math.min(this.rows.length, index(bottom + AHEAD) + this.columns);
    for (const [i, tile] of this.tiles) {
      if ((i < from || i >= to) && tile !== document.activeElement) {
        tile.remove();
        this.tiles.delete(i);
      }
    }
    for (let i = from; i < to; i++) if (!this.tiles.has(i)) this.add(i);
    if (this.refocus) {
      this.refocus = false;
      this.tiles.get(this.focused)?.focus({ preventScroll: true });
    }
    const first = Math.floor(from / perSheet()), last = Math.floor((to - 1) / perSheet());
    const centre = Math.floor(index((top + bottom) / 2) / perSheet());
    this.wanted = Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i)
      .sort((a, b) => Math.abs(a - centre) - Math.abs(b - centre));
    this.load();
  }

  /** @param {number} i */
  add(i) {
    const row = this.rows[i], sure = Math.floor(this.confidence[i] / 10);
    const placed = this.placed.has(row);
    const tile = el("div", {
      class: placed ? "tile placed" : "tile", role: "option", tabindex: i === this.focused ? 0 : -1,
      "aria-label": `Image ${row}, ${placed ? "placed by hand" : `${sure} %`}`,
      "aria-posinset": i + 1, "aria-setsize": this.rows.length, "aria-selected": String(this.selected.has(row)),
    }, el("span", { class: "check" }), el("span", { class: "sure" }, placed ? "by hand" : `${sure} %`));
    this.indices.set(tile, i);
    this.place(tile, i);
    this.tiles.set(i, tile);
    this.root.append(tile);
    const chunk = Math.floor(i / perSheet());
    this.paint(tile, i, chunk);
  }

  /** Shows a tile's thumbnail, once its sheet is there. @param {HTMLElement} tile @param {number} i @param {number} chunk */
  paint(tile, i, chunk) {
    const start = chunk * perSheet(), url = this.sheets.get(chunk);
    if (url) show(tile, url, i - start, Math.min(perSheet(), this.rows.length - start));
  }

  load() {
    for (const chunk of this.wanted) {
      if (this.loading.size >= LOADING) return;
      const url = sheetUrl(this.rows.slice(chunk * perSheet(), (chunk + 1) * perSheet()));
      if (this.sheets.has(chunk) || this.loading.has(url)) continue;
      this.loading.add(url);
      const rows = this.rows, image = new Image();
      image.onerror = () => this.loading.delete(url);
      image.onload = () => {
        this.loading.delete(url);
        if (rows === this.rows) {
          this.sheets.set(chunk, url);
          for (const [i, tile] of this.tiles) if (Math.floor(i / perSheet()) === chunk) this.paint(tile, i, chunk);
        }
        this.load();
      };
      image.src = url;
    }
  }

  /**
   * Scrolls to an image: "nearest" moves as little as need be, "start" brings it to the top.
   * @param {number} i
   * @param {"nearest" | "start"} where
   */
  reveal(i, where = "nearest") {
    const y = Math.floor(i / this.columns) * this.line + this.root.offsetTop, view = this.scroller;
    const above = this.root.offsetTop - this.top;
    if (where === "start") view.scrollTop = y - above;
    else if (y < view.scrollTop + above) view.scrollTop = y - above;
    else if (y + this.line > view.scrollTop + view.clientHeight) view.scrollTop = y + this.line - view.clientHeight;
    this.draw();
  }

  /** @param {number} i */
  mark(i) {
    this.tiles.get(this.focused)?.setAttribute("tabindex", "-1");
    this.focused = i;
    this.tiles.get(i)?.setAttribute("tabindex", "0");
  }

  /** @param {number} i */
  go(i) {
    i = Math.min(Math.max(i, 0), this.rows.length - 1);
    this.reveal(i);
    this.mark(i);
    this.tiles.get(i)?.focus({ preventScroll: true });
  }

  /** @param {number} i @param {boolean} on */
  toggle(i, on = !this.selected.has(this.rows[i])) {
    this.anchor = i;
    this.put([i], on);
  }

  /** @param {number} i */
  range(i) {
    const [from, to] = [Math.min(this.anchor, i), Math.max(this.anchor, i)];
    this.put(Array.from({ length: to - from + 1 }, (_, k) => from + k), true);
  }

  /** @param {Iterable<number>} places @param {boolean} on */
  put(places, on) {
    for (const i of places) {
      this.selected[on ? "add" : "delete"](this.rows[i]);
      this.tiles.get(i)?.setAttribute("aria-selected", String(on));
    }
    this.on.select(this.selected);
  }

  /** @param {boolean} on */
  all(on) {
    this.put(this.rows.keys(), on);
  }

  /** @param {MouseEvent} e */
  click(e) {
    const i = this.indexOf(e.target);
    if (i === undefined) return;
    if (this.pressed) return void (this.pressed = false);
    const check = e.target instanceof Element && e.target.matches(".check");
    if (e.shiftKey) this.range(i);
    else if (e.ctrlKey || e.metaKey || this.selected.size || check) this.toggle(i);
    else this.on.open(this.rows[i]);
  }

  /** A finger that stays on an image selects it. @param {PointerEvent} e */
  press(e) {
    const i = this.indexOf(e.target);
    this.pressed = false;
    if (i === undefined || e.pointerType !== "touch") return;
    const timer = setTimeout(() => { this.pressed = true; this.toggle(i); }, LONG_PRESS);
    for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => clearTimeout(timer), { once: true });
  }

  /** @param {KeyboardEvent} e */
  key(e) {
    const i = this.indexOf(e.target);
    if (i === undefined || e.ctrlKey || e.metaKey || e.altKey) {
      if (i !== undefined && e.key === "a" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); this.all(true); }
      return;
    }
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.line) - 1) * this.columns;
    /** @type {Record<string, number>} */
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
      PageUp: -page, PageDown: page, Home: -i, End: this.rows.length - 1 - i,
    };
    if (e.key in steps) {
      const to = i + steps[e.key];
      this.go(to);
      if (e.shiftKey) this.range(this.focused);
    } else if (e.key === "Enter") this.on.open(this.rows[i]);
    else if (e.key === " " || e.key === "x") e.shiftKey ? this.range(i) : this.toggle(i);
    else return;
    e.preventDefault();
  }
}
