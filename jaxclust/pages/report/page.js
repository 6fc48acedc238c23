// @ts-check
"use strict";

/**
 * What the map is drawn from. A mark's `look` is its colour and shape; `xy` are thousandths of the map's side.
 * @typedef {{ n: number, title: string, look: number }} Kind
 * @typedef {{ palette: string[], sheet: { columns: number }, groups: Kind[], clusters: Kind[], classes?: Kind[],
 *   maps: { epoch: number, xy: number[], clusters: number[] | null }[],
 *   points: { name: string[], group: number[], confidence: number[], label?: number[] } }} MapData
 */

const root = document.documentElement;
root.classList.add("js");
/** The element with an id, or null. @param {string} id */
const optional = (id) => document.getElementById(id);
/** The element with an id, which the page has. @param {string} id */
const $ = (id) => /** @type {HTMLElement} */ (optional(id));
const themer = /** @type {HTMLButtonElement} */ ($("theme"));

// ---- Light, dark, or as the system has it -------------------------------------------------------------------------
const themes = ["auto", "light", "dark"];
/** @param {string} [value] @returns {string | undefined} */
const remember = (value) => { try { if (value) localStorage.theme = value; return localStorage.theme; } catch { return value; } };
let redraw = () => {};
/** @param {string} theme */
const setTheme = (theme) => {
  if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
  themer.textContent = theme[0].toUpperCase() + theme.slice(1);
  themer.setAttribute("aria-label", `Colours: ${theme}. Change`);
  themer.value = theme;
  redraw();
};
setTheme(themes.find((theme) => theme === remember()) ?? "auto");
themer.addEventListener("click", () => {
  const next = themes[(themes.indexOf(themer.value) + 1) % themes.length];
  remember(next);
  setTheme(next);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());

// ---- Images of clusters: one tab stop a strip, arrows within, a larger view on focus or tap ------------------------
const tip = $("tip");
const closeTip = () => { tip.hidden = true; };
/** @param {HTMLElement} t */
const showTip = (t) => {
  const big = /** @type {HTMLElement} */ (t.cloneNode());
  big.removeAttribute("tabindex");
  big.removeAttribute("title");
  big.setAttribute("aria-hidden", "true");
  big.classList.add("big");
  const said = document.createElement("p");
  said.textContent = t.title;
  tip.replaceChildren(big, said);
  tip.hidden = false;
};
/** Images in a strip. @param {Element} strip */
const images = (strip) => [.../** @type {NodeListOf<HTMLElement>} */ (strip.querySelectorAll(".t"))];
for (const strip of document.querySelectorAll(".strip")) images(strip)[0].tabIndex = 0;
/** The image that an event happened to, and those of its strip. @param {EventTarget | null} target */
const at = (target) => {
  const t = target instanceof Element ? target.closest(".strip .t") : null, strip = t?.closest(".strip");
  return t instanceof HTMLElement && strip ? { t, all: images(strip) } : null;
};
document.addEventListener("focusin", (e) => {
  const found = at(e.target);
  if (found) showTip(found.t); else closeTip();
});
document.addEventListener("click", (e) => {
  const found = at(e.target);
  if (found) move(found.all, found.t); else closeTip();
});
/** @param {HTMLElement[]} all @param {HTMLElement} to */
const move = (all, to) => {
  for (const t of all) t.tabIndex = t === to ? 0 : -1;
  to.focus();
  showTip(to);
};
document.addEventListener("keydown", (e) => {
  if (e.key === "Escape") closeTip();
  const found = at(e.target);
  if (!found) return;
  const { t, all } = found, i = all.indexOf(t);
  const to = new Map([["ArrowRight", i + 1], ["ArrowLeft", i - 1], ["Home", 0], ["End", all.length - 1]]).get(e.key);
  if (to === undefined || !all[to]) return;
  e.preventDefault();
  move(all, all[to]);
});

// ---- The order of clusters -----------------------------------------------------------------------------------------
const order = /** @type {HTMLSelectElement} */ ($("order"));
/** @type {Record<string, [string, number]>} */
const orders = { number: ["number", 1], large: ["size", -1], small: ["size", 1], unsure: ["confidence", 1] };
order.addEventListener("change", () => {
  const [key, sign] = orders[order.value];
  const cards = [.../** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".card"))];
  /** @param {HTMLElement} card */
  const value = (card) => (card.dataset[key] === "" ? Infinity : Number(card.dataset[key]));
  cards.sort((a, b) => sign * (value(a) - value(b)) || Number(a.dataset.number) - Number(b.dataset.number));
  $("cards").append(...cards);
});

// ---- The map -------------------------------------------------------------------------------------------------------
/** @param {HTMLCanvasElement} canvas */
const penOf = (canvas) => /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
const written = optional("map-data");
if (written) {
  /** @type {MapData} */
  const data = JSON.parse(written.textContent ?? "");
  const canvas = /** @type {HTMLCanvasElement} */ ($("map"));
  const pen = penOf(canvas);
  const slider = /** @type {HTMLInputElement} */ ($("epoch"));
  const count = data.points.group.length;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  /** @type {keyof typeof kinds} */
  let colouring = "now";
  let shown = Number(slider.value);
  /** @type {number | null} */
  let lit = null;
  /** @type {number | null} */
  let chosen = null;
  let xy = data.maps[shown].xy, frame = 0, side = 1;

  // As many colours as can be told apart; then other shapes in the same colours.
  /** @type {((p: CanvasRenderingContext2D, x: number, y: number, r: number) => void)[]} */
  const shapes = [
    (p, x, y, r) => p.arc(x, y, r, 0, 7),
    (p, x, y, r) => p.rect(x - r * .9, y - r * .9, r * 1.8, r * 1.8),
    (p, x, y, r) => { p.moveTo(x, y - r * 1.2); p.lineTo(x + r * 1.15, y + r * .9); p.lineTo(x - r * 1.15, y + r * .9); p.closePath(); },
    (p, x, y, r) => { p.moveTo(x, y - r * 1.3); p.lineTo(x + r * 1.3, y); p.lineTo(x, y + r * 1.3); p.lineTo(x - r * 1.3, y); p.closePath(); },
  ];
  /**
   * @param {CanvasRenderingContext2D} p
   * @param {number} look
   * @param {number} x
   * @param {number} y
   * @param {number} r
   */
  const mark = (p, look, x, y, r) => {
    p.beginPath();
    shapes[Math.floor(look / data.palette.length) % shapes.length](p, x, y, r);
    p.fillStyle = data.palette[look % data.palette.length];
    p.fill();
  };
  /** @type {Record<"now" | "then" | "classes", { of: (i: number) => number | undefined, names: Kind[] }>} */
  const kinds = {
    now: { of: (i) => data.points.group[i], names: data.groups },
    then: { of: (i) => data.maps[shown].clusters?.[i], names: data.clusters },
    classes: { of: (i) => data.points.label?.[i], names: data.classes ?? [] },
  };
  /** @returns {Map<number | undefined, Kind>} */
  const names = () => new Map(kinds[colouring].names.map((entry) => [entry.n, entry]));
  /** @param {number} i @returns {[number, number]} */
  const place = (i) => [12 + xy[2 * i] / 1000 * (side - 24), 12 + (1 - xy[2 * i + 1] / 1000) * (side - 24)];

  const draw = () => {
    const scale = devicePixelRatio || 1;
    side = canvas.clientWidth;
    if (canvas.width !== Math.round(side * scale)) canvas.width = canvas.height = Math.round(side * scale);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, side, side);
    const known = names(), of = kinds[colouring].of;
    for (const front of [false, true]) {
      for (let i = 0; i < count; i++) {
        const on = lit === null || of(i) === lit;
        if (on !== front) continue;
        pen.globalAlpha = on ? .9 : .12;
        mark(pen, known.get(of(i))?.look ?? 0, ...place(i), side > 450 ? 4 : 3);
      }
    }
    pen.globalAlpha = 1;
    if (chosen !== null) {
      pen.beginPath();
      pen.arc(...place(chosen), 8, 0, 7);
      pen.lineWidth = 2.5;
      pen.strokeStyle = getComputedStyle(canvas).color;
      pen.stroke();
    }
  };
  redraw = draw;

  const tell = () => {
    const i = chosen, box = $("seen");
    const said = document.createElement("p");
    if (i === null) {
      said.textContent = box.dataset.hint ?? "";
      box.replaceChildren(said);
      return;
    }
    const picture = document.createElement("span");
    picture.className = "t mapped";
    picture.setAttribute("aria-hidden", "true");
    picture.style.setProperty("--i", String(i % data.sheet.columns));
    picture.style.setProperty("--j", String(Math.floor(i / data.sheet.columns)));
    const name = document.createElement("b");
    name.textContent = data.points.name[i];
    said.append(name, data.groups.find((g) => g.n === data.points.group[i])?.title ?? "");
    said.append(`, ${data.points.confidence[i]} % certain`);
    const label = data.points.label?.[i], named = data.classes?.find((c) => c.n === label);
    if (named) said.append(document.createElement("br"), `label ${named.title}`);
    box.replaceChildren(picture, said);
  };
  /** @param {number | null} i */
  const choose = (i) => { if (i !== chosen) { chosen = i; tell(); draw(); } };

  /** @param {number} x @param {number} y @param {number} reach */
  const nearest = (x, y, reach) => {
    /** @type {number | null} */
    let best = null;
    let least = reach * reach;
    for (let i = 0; i < count; i++) {
      if (lit !== null && kinds[colouring].of(i) !== lit) continue;
      const [a, b] = place(i), d = (a - x) ** 2 + (b - y) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  };
  /** @param {MouseEvent} e @param {number} reach */
  const under = (e, reach) => {
    const box = canvas.getBoundingClientRect();
    return nearest(e.clientX - box.left - canvas.clientLeft, e.clientY - box.top - canvas.clientTop, reach);
  };
  canvas.addEventListener("pointermove", (e) => { if (e.pointerType === "mouse") { const i = under(e, 14); if (i !== null) choose(i); } });
  canvas.addEventListener("click", (e) => choose(under(e, 24)));
  /** @type {Record<string, [number, number] | undefined>} */
  const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  canvas.addEventListener("keydown", (e) => {
    const way = ways[e.key];
    if (e.key === "Escape") choose(null);
    if (!way) return;
    e.preventDefault();
    if (chosen === null) { choose(nearest(side / 2, side / 2, side)); return; }
    const [x, y] = place(chosen);
    /** @type {number | null} */
    let best = null;
    let least = Infinity;
    for (let i = 0; i < count; i++) {
      if (i === chosen || (lit !== null && kinds[colouring].of(i) !== lit)) continue;
      const [a, b] = place(i), ahead = (a - x) * way[0] + (b - y) * way[1];
      const aside = Math.abs((a - x) * way[1]) + Math.abs((b - y) * way[0]);
      if (ahead > 0 && aside <= ahead && ahead + 2 * aside < least) { least = ahead + 2 * aside; best = i; }
    }
    if (best !== null) choose(best);
  });

  const legend = () => {
    $("legend").replaceChildren(...kinds[colouring].names.map((entry) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(lit === entry.n));
      const sign = document.createElement("canvas");
      sign.width = sign.height = 28;
      mark(penOf(sign), entry.look, 14, 14, 10);
      button.append(sign, entry.title);
      button.addEventListener("click", () => {
        lit = lit === entry.n ? null : entry.n;
        for (const other of $("legend").children) other.setAttribute("aria-pressed", String(other === button && lit !== null));
        draw();
      });
      return button;
    }));
  };
  /** @type {NodeListOf<HTMLInputElement>} */
  const choices = document.querySelectorAll("input[name=colouring]");
  for (const choice of choices) {
    choice.addEventListener("change", () => {
      colouring = /** @type {keyof typeof kinds} */ (choice.value);
      lit = null;
      legend();
      draw();
    });
  }

  /** @param {number} to */
  const go = (to) => {
    const from = xy.slice(), goal = data.maps[to].xy, start = performance.now();
    const lasts = still.matches || document.hidden ? 0 : 700;
    shown = to;
    slider.value = String(to);
    slider.setAttribute("aria-valuetext", `epoch ${data.maps[to].epoch}`);
    $("when").textContent = `epoch ${data.maps[to].epoch}`;
    cancelAnimationFrame(frame);
    /** @param {number} now */
    const tick = (now) => {
      const t = lasts ? Math.min(Math.max((now - start) / lasts, 0), 1) : 1;
      const eased = t * t * (3 - 2 * t);
      xy = goal.map((value, i) => from[i] + eased * (value - from[i]));
      draw();
      if (t < 1) frame = requestAnimationFrame(tick);
    };
    tick(start);
  };
  slider.addEventListener("input", () => { stop(); go(Number(slider.value)); });
  const player = optional("play"); // a single map has no time
  let playing = 0;
  const stop = () => { clearInterval(playing); playing = 0; if (player) player.textContent = "Play"; };
  player?.addEventListener("click", () => {
    if (playing) { stop(); return; }
    player.textContent = "Stop";
    go(shown === data.maps.length - 1 ? 0 : shown + 1);
    playing = setInterval(() => { if (shown === data.maps.length - 1) stop(); else go(shown + 1); }, 1200);
  });
  new ResizeObserver(draw).observe(canvas);
  legend();
  tell();
}
