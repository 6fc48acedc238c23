// Small things that every part of the page is made of. Text only ever becomes text: nothing here parses markup.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
export const percent = (share) => (share === null ? "–" : `${Math.floor(share * 100)} %`);
export const title = (group) => group.name || `Group ${group.group}`;
export const name = (group, tag = "span") =>
  el(tag, { class: group.name ? "name" : "name unnamed", dir: "auto" }, title(group));

// How thumbnails lie on a sheet; the same for all sheets of a run.
let sheet;

export function setSheet(about) {
  sheet = about;
  const { width: w, height: h, gutter: g } = about;
  const style = document.documentElement.style;
  const said = { "--kx": (w + 2 * g) / w, "--ky": (h + 2 * g) / h, "--gx": g / w, "--gy": g / h, "--ratio": h / w };
  for (const [key, value] of Object.entries(said)) style.setProperty(key, value);
  document.documentElement.classList.toggle("pixels", Math.max(w, h) <= 32);
}

export const perSheet = () => sheet.most;
export const ratio = () => sheet.height / sheet.width;
export const sheetUrl = (rows) => `/api/sheet?of=${sheet.token}&rows=${rows.join(",")}`;

// Shows the thumbnail at place `at` of a sheet of `n` images as the background of `node`.
export function show(node, url, at, n) {
  node.style.setProperty("--c", at % sheet.columns);
  node.style.setProperty("--l", Math.floor(at / sheet.columns));
  node.style.setProperty("--lines", Math.ceil(n / sheet.columns));
  node.style.backgroundImage = `url("${url}")`;
}

// Thumbnails of a few rows, on one sheet that is asked for once they come into sight.
const sight = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue;
    sight.unobserve(target);
    target.load();
  }
}, { rootMargin: "200px" });

export function strip(rows, each = () => el("span")) {
  const nodes = rows.map((row, i) => each(row, i));
  const box = el("span", { class: "strip" }, ...nodes);
  nodes.forEach((node) => node.classList.add("thumb"));
  box.load = () => nodes.forEach((node, i) => show(node.querySelector(".picture") || node, sheetUrl(rows), i, rows.length));
  if (rows.length) sight.observe(box);
  return box;
}

// What this browser remembers from visit to visit.
export function kept(key, otherwise) {
  try { return localStorage.getItem(`jaxclust ${key}`) ?? otherwise; } catch { return otherwise; }
}

export function keep(key, value) {
  try { localStorage.setItem(`jaxclust ${key}`, value); } catch { /* a private window keeps nothing */ }
}

export function select(options, value, label, change) {
  const node = el("select", { "aria-label": label, "data-key": label, onchange: () => change(node.value) },
    ...Object.entries(options).map(([key, [text]]) => el("option", { value: key, selected: key === value }, text)));
  return node;
}
