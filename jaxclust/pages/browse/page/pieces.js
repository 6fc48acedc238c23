// @ts-check
// Small things that every part of the page is made of. Text only ever becomes text: nothing here parses markup.

/** @import { Sheet } from "./api.js" */
/** @typedef {{ group: number, name: string }} Named  A cluster's number, and the name that a person gave it, or "". */
/** @typedef {string | number | boolean | null | undefined | ((event: any) => void)} Attribute */
/** @typedef {string | number | Node | null | undefined} Child */

/**
 * An element; the attributes `onclick`, `onchange` and so on are listeners.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, Attribute>} attributes
 * @param {Child[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) node.setAttribute(name, String(value));
  }
  for (const child of children) {
    if (child !== null && child !== undefined) node.append(typeof child === "number" ? String(child) : child);
  }
  return node;
}

/** The element of the page with an id. @param {string} id */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`the page has no ${id}`);
  return node;
}

/** @param {number} n @param {string} what */
export const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
/** @param {number | null} share */
export const percent = (share) => (share === null ? "–" : `${Math.floor(share * 100)} %`);
/** @param {Named} group */
export const title = (group) => group.name || `Cluster ${group.group}`;
/** @param {Named} group @param {"span" | "h1" | "h2"} tag */
export const name = (group, tag = "span") =>
  el(tag, { class: group.name ? "name" : "name unnamed", dir: "auto" }, title(group));

// How thumbnails lie on a sheet; the same for all sheets of a run.
/** @type {Sheet} */
let sheet;

/** @param {Sheet} about */
export function setSheet(about) {
  sheet = about;
  const { width: w, height: h, gutter: g } = about;
  const style = document.documentElement.style;
  const said = { "--kx": (w + 2 * g) / w, "--ky": (h + 2 * g) / h, "--gx": g / w, "--gy": g / h, "--ratio": h / w };
  for (const [key, value] of Object.entries(said)) style.setProperty(key, String(value));
  document.documentElement.classList.toggle("pixels", Math.max(w, h) <= 32);
}

export const perSheet = () => sheet.most;
export const ratio = () => sheet.height / sheet.width;
/** @param {number[]} rows */
export const sheetUrl = (rows) => `/api/sheet?of=${sheet.token}&rows=${rows.join(",")}`;

/**
 * Shows the thumbnail at place `at` of a sheet of `n` images as the background of `node`.
 * @param {HTMLElement} node
 * @param {string} url
 * @param {number} at
 * @param {number} n
 */
export function show(node, url, at, n) {
  node.style.setProperty("--c", String(at % sheet.columns));
  node.style.setProperty("--l", String(Math.floor(at / sheet.columns)));
  node.style.setProperty("--lines", String(Math.ceil(n / sheet.columns)));
  node.style.backgroundImage = `url("${url}")`;
}

// Thumbnails of a few rows, on one sheet that is asked for once they come into sight.
/** @type {WeakMap<Element, () => void>} */
const waiting = new WeakMap();
const sight = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue;
    sight.unobserve(target);
    waiting.get(target)?.();
  }
}, { rootMargin: "200px" });

/**
 * @param {number[]} rows
 * @param {(row: number, i: number) => HTMLElement} each
 */
export function strip(rows, each = () => el("span")) {
  const nodes = rows.map((row, i) => each(row, i));
  const box = el("span", { class: "strip" }, ...nodes);
  nodes.forEach((node) => node.classList.add("thumb"));
  waiting.set(box, () => nodes.forEach((node, i) => {
    const picture = node.querySelector(".picture");
    show(picture instanceof HTMLElement ? picture : node, sheetUrl(rows), i, rows.length);
  }));
  if (rows.length) sight.observe(box);
  return box;
}

// What this browser remembers from visit to visit.
/** @param {string} key @param {string} otherwise */
export function kept(key, otherwise) {
  try { return localStorage.getItem(`jaxclust ${key}`) ?? otherwise; } catch { return otherwise; }
}

/** @param {string} key @param {string} value */
export function keep(key, value) {
  try { localStorage.setItem(`jaxclust ${key}`, value); } catch { /* a private window keeps nothing */ }
}

/**
 * A menu of what `options` say first.
 * @param {Record<string, [string, ...unknown[]]>} options
 * @param {string} value
 * @param {string} label
 * @param {(value: string) => void} change
 */
export function select(options, value, label, change) {
  const node = el("select", { "aria-label": label, "data-key": label, onchange: () => change(node.value) },
    ...Object.entries(options).map(([key, [text]]) => el("option", { value: key, selected: key === value }, text)));
  return node;
}
