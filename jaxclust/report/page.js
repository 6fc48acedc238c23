"use strict";
const root = document.documentElement;
root.classList.add("js");
const $ = (id) => document.getElementById(id);

// ---- Light, dark, or as the system has it -------------------------------------------------------------------------
const themes = ["auto", "light", "dark"];
const remember = (value) => { try { if (value) localStorage.theme = value; return localStorage.theme; } catch { return value; } };
let redraw = () => {};
const setTheme = (theme) => {
  if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
  $("theme").textContent = { auto: "Auto", light: "Light", dark: "Dark" }[theme];
  $("theme").setAttribute("aria-label", `Colours: ${theme}. Change`);
  $("theme").value = theme;
  redraw();
};
setTheme(themes.includes(remember()) ? remember() : "auto");
$("theme").addEventListener("click", () => {
  const next = themes[(themes.indexOf($("theme").value) + 1) % themes.length];
  remember(next);
  setTheme(next);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());

// ---- Images of clusters: one tab stop a strip, arrows within, a larger view on focus or tap ------------------------
const tip = $("tip");
const closeTip = () => { if (tip) tip.hidden = true; };
const showTip = (t) => {
  const big = t.cloneNode();
  big.removeAttribute("tabindex");
  big.removeAttribute("title");
  big.setAttribute("aria-hidden", "true");
  big.classList.add("big");
  const said = document.createElement("p");
  said.textContent = t.title;
  tip.replaceChildren(big, said);
  tip.hidden = false;
};
for (const strip of document.querySelectorAll(".strip")) strip.querySelector(".t").tabIndex = 0;
document.addEventListener("focusin", (e) => {
  if (e.target.matches(".strip .t")) showTip(e.target); else closeTip();
});
document.addEventListener("click", (e) => {
  const t = e.target.closest(".strip .t");
  if (!t) { closeTip(); return; }
  move(t.closest(".strip"), t);
});
const move = (strip, to) => {
  for (const t of strip.querySelectorAll(".t")) t.tabIndex = t === to ? 0 : -1;
  to.focus();
  showTip(to);
};
document.addEventListener("keydown", (e) => {
  if (e.key === "Escape") closeTip();
  if (!e.target.matches(".strip .t")) return;
  const all = [...e.target.closest(".strip").querySelectorAll(".t")];
  const at = all.indexOf(e.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[e.key];
  if (to === undefined || !all[to]) return;
  e.preventDefault();
  move(e.target.closest(".strip"), all[to]);
});

// ---- The order of clusters -----------------------------------------------------------------------------------------
$("order")?.addEventListener("change", (e) => {
  const [key, sign] = { number: ["number", 1], large: ["size", -1], small: ["size", 1], unsure: ["confidence", 1] }[e.target.value];
  const cards = [...document.querySelectorAll(".card")];
  const value = (card) => (card.dataset[key] === "" ? Infinity : Number(card.dataset[key]));
  cards.sort((a, b) => sign * (value(a) - value(b)) || a.dataset.number - b.dataset.number);
  $("cards").append(...cards);
});

// ---- The map -------------------------------------------------------------------------------------------------------
if ($("map-data")) {
  const data = JSON.parse($("map-data").textContent);
  const canvas = $("map");
  const pen = canvas.getContext("2d");
  const slider = $("epoch");
  const count = data.points.group.length;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let colouring = "now", shown = Number(slider.value), lit = null, chosen = null;
  let xy = data.maps[shown].xy, frame = 0, side = 1;

  // As many colours as can be told apart; then other shapes in the same colours.
  const shapes = [
    (p, x, y, r) => p.arc(x, y, r, 0, 7),
    (p, x, y, r) => p.rect(x - r * .9, y - r * .9, r * 1.8, r * 1.8),
    (p, x, y, r) => { p.moveTo(x, y - r * 1.2); p.lineTo(x + r * 1.15, y + r * .9); p.lineTo(x - r * 1.15, y + r * .9); p.closePath(); },
    (p, x, y, r) => { p.moveTo(x, y - r * 1.3); p.lineTo(x + r * 1.3, y); p.lineTo(x, y + r * 1.3); p.lineTo(x - r * 1.3, y); p.closePath(); },
  ];
  const mark = (p, look, x, y, r) => {
    p.beginPath();
    shapes[Math.floor(look / data.palette.length) % shapes.length](p, x, y, r);
    p.fillStyle = data.palette[look % data.palette.length];
    p.fill();
  };
  const kinds = {
    now: { of: (i) => data.points.group[i], names: data.groups },
    then: { of: (i) => data.maps[shown].clusters[i], names: data.clusters },
    classes: { of: (i) => data.points.label?.[i], names: data.classes },
  };
  const names = () => new Map(kinds[colouring].names.map((entry) => [entry.n, entry]));
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
      said.textContent = box.dataset.hint;
      box.replaceChildren(said);
      return;
    }
    const picture = document.createElement("span");
    picture.className = "t mapped";
    picture.setAttribute("aria-hidden", "true");
    picture.style.setProperty("--i", i % data.sheet.columns);
    picture.style.setProperty("--j", Math.floor(i / data.sheet.columns));
    const name = document.createElement("b");
    name.textContent = data.points.name[i];
    said.append(name, data.groups.find((g) => g.n === data.points.group[i]).title);
    said.append(`, ${data.points.confidence[i]} % certain`);
    if (data.points.label) said.append(document.createElement("br"), `label ${data.classes.find((c) => c.n === data.points.label[i]).title}`);
    box.replaceChildren(picture, said);
  };
  const choose = (i) => { if (i !== chosen) { chosen = i; tell(); draw(); } };

  const nearest = (x, y, reach) => {
    let best = null, least = reach * reach;
    for (let i = 0; i < count; i++) {
      if (lit !== null && kinds[colouring].of(i) !== lit) continue;
      const [a, b] = place(i), d = (a - x) ** 2 + (b - y) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  };
  const under = (e, reach) => {
    const box = canvas.getBoundingClientRect();
    return nearest(e.clientX - box.left - canvas.clientLeft, e.clientY - box.top - canvas.clientTop, reach);
  };
  canvas.addEventListener("pointermove", (e) => { if (e.pointerType === "mouse") { const i = under(e, 14); if (i !== null) choose(i); } });
  canvas.addEventListener("click", (e) => choose(under(e, 24)));
  canvas.addEventListener("keydown", (e) => {
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[e.key];
    if (e.key === "Escape") choose(null);
    if (!way) return;
    e.preventDefault();
    if (chosen === null) { choose(nearest(side / 2, side / 2, side)); return; }
    const [x, y] = place(chosen);
    let best = null, least = Infinity;
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
      mark(sign.getContext("2d"), entry.look, 14, 14, 10);
      button.append(sign, entry.title);
      button.addEventListener("click", () => {
        lit = lit === entry.n ? null : entry.n;
        for (const other of $("legend").children) other.setAttribute("aria-pressed", String(other === button && lit !== null));
        draw();
      });
      return button;
    }));
  };
  for (const choice of document.querySelectorAll("input[name=colouring]")) {
    choice.addEventListener("change", () => { colouring = choice.value; lit = null; legend(); draw(); });
  }

  const go = (to) => {
    const from = xy.slice(), goal = data.maps[to].xy, start = performance.now();
    const lasts = still.matches || document.hidden ? 0 : 700;
    shown = to;
    slider.value = to;
    slider.setAttribute("aria-valuetext", `epoch ${data.maps[to].epoch}`);
    $("when").textContent = `epoch ${data.maps[to].epoch}`;
    cancelAnimationFrame(frame);
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
  let playing = 0;
  const stop = () => { clearInterval(playing); playing = 0; if ($("play")) $("play").textContent = "Play"; };
  $("play")?.addEventListener("click", () => {
    if (playing) { stop(); return; }
    $("play").textContent = "Stop";
    go(shown === data.maps.length - 1 ? 0 : shown + 1);
    playing = setInterval(() => { if (shown === data.maps.length - 1) stop(); else go(shown + 1); }, 1200);
  });
  new ResizeObserver(draw).observe(canvas);
  legend();
  tell();
}
