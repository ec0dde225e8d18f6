"use strict";

// ---- light and dark ---------------------------------------------------------------------------

const root = document.documentElement;
const theme = document.getElementById("theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
}

function nameTheme() {
  theme.textContent = isDark() ? "Light" : "Dark";
}

theme.hidden = false;
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
prefersDark.addEventListener("change", nameTheme);
nameTheme();

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

// ---- examples: a group of the cards at a time -------------------------------------------------

const FIRST = 24; // cards that are shown before more are asked for

for (const box of document.querySelectorAll(".examples")) {
  const cards = [...box.querySelectorAll(".card")];
  const buttons = [...box.querySelectorAll("[data-group]")];
  const status = box.querySelector(".status");
  const more = box.querySelector(".more");
  let group = "", name = "", limit = FIRST;

  function show() {
    const chosen = cards.filter(
      (card) => !group || card.dataset.groups.split(" ").includes(group));
    for (const card of cards) card.hidden = true;
    for (const card of chosen.slice(0, limit)) card.hidden = false;
    more.hidden = chosen.length <= limit;
    more.textContent = `Show ${chosen.length - limit} more`;
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.group === group));
    }
    if (status) status.textContent = name && `${name}: ${chosen.length} shown here`;
  }

  for (const button of buttons) {
    button.addEventListener("click", () => {
      group = button.dataset.group;
      name = button.dataset.name;
      limit = FIRST;
      show();
      if (button.closest("table")) {
        status.focus({ preventScroll: true });
        status.scrollIntoView({ block: "start" });
      }
    });
  }
  if (cards.length) {
    more.addEventListener("click", () => {
      limit = Infinity;
      show();
    });
    const first = box.querySelector(".choices [data-group]");
    if (first) group = first.dataset.group;
    show();
  }
}

// ---- curves -----------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
const COLORS = 6;
const MARGIN = { top: 24, right: 12, bottom: 36, left: 52 };
const HINT = "Drag to zoom, double-click to see all; keys: ← → + − 0";

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

function numbers(text) {
  return text ? text.split(" ").map((word) => (word === "-" ? NaN : Number(word))) : [];
}

function short(value) {
  if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e7)) {
    return value.toExponential(2);
  }
  return Number(value.toPrecision(5)).toLocaleString("en", { maximumSignificantDigits: 5 });
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

function logTicks(low, high) {
  const found = [];
  const from = Math.floor(Math.log10(low));
  const every = Math.max(1, Math.ceil((Math.log10(high) - from) / 6));
  for (let e = from; 10 ** e <= high; e += every) {
    const factors = Math.log10(high / low) < 2 ? [1, 2, 5] : [1];
    found.push(...factors.map((f) => Number((f * 10 ** e).toPrecision(3))));
  }
  const within = found.filter((t) => t >= low && t <= high);
  return within.length > 1 ? within : ticks(low, high, 4);
}

// The first place in ascending numbers that is not below a value.
function place(values, value) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

for (const figure of document.querySelectorAll(".chart")) chart(figure);

function chart(figure) {
  let colored = 0;
  const lines = JSON.parse(figure.querySelector("script").textContent).map((line) => ({
    ...line, x: numbers(line.x), y: numbers(line.y), shown: true,
    color: line.quiet ? "faint" : `k${colored++ % COLORS}`,
  }));
  const all = lines.flatMap((line) => [line.x[0], line.x[line.x.length - 1]])
    .filter(Number.isFinite);
  if (!all.length) return;
  let whole = [Math.min(...all), Math.max(...all)];
  if (whole[0] === whole[1]) whole = [whole[0] - 0.5, whole[1] + 0.5];
  let [left, right] = whole;
  let log = figure.dataset.log === "1";
  let at = null; // the x that the figures are read at
  let from = null; // where a drag began, in pixels

  const bar = document.createElement("div");
  bar.className = "bar";
  const svg = element("svg", {
    tabindex: 0, role: "img", "aria-label": `${figure.dataset.title}. ${HINT}`,
  });
  const output = document.createElement("output");
  figure.append(bar, svg, output);

  function button(text, pressed, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    if (pressed !== null) made.setAttribute("aria-pressed", String(pressed));
    made.addEventListener("click", () => {
      const now = act();
      if (pressed !== null) made.setAttribute("aria-pressed", String(now));
      draw();
    });
    bar.append(made);
    return made;
  }

  for (const line of lines) {
    const made = button(line.name, true, () => (line.shown = !line.shown));
    made.dataset.series = line.name;
    const key = document.createElement("i");
    key.className = line.color;
    made.prepend(key);
  }
  if ("log" in figure.dataset) button("log", log, () => (log = !log)).dataset.act = "log";
  const reset = button("reset zoom", null, () => zoom(...whole));
  reset.dataset.act = "reset";

  function zoom(low, high) {
    const least = (whole[1] - whole[0]) / 1e4;
    const span = Math.max(high - low, least);
    left = Math.max(whole[0], Math.min(low, whole[1] - span));
    right = Math.min(whole[1], left + span);
  }

  let width = 0, height = 0, toX, toY;

  function draw() {
    width = svg.clientWidth;
    height = svg.clientHeight;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    reset.disabled = left === whole[0] && right === whole[1];
    const [low, high] = range();
    const plot = { width: width - MARGIN.left - MARGIN.right, bottom: height - MARGIN.bottom };
    const scale = log ? Math.log10 : (v) => v;
    const stretch = (plot.bottom - MARGIN.top) / (scale(high) - scale(low));
    toX = (x) => MARGIN.left + ((x - left) / (right - left)) * plot.width;
    toY = (y) => plot.bottom - (scale(y) - scale(low)) * stretch;
    axes(low, high, plot);
    for (const line of lines) if (line.shown) drawLine(line, plot);
    point();
  }

  function range() {
    let low = Infinity, high = -Infinity;
    for (const line of lines) {
      if (!line.shown) continue;
      // With one neighbour on either side, whose lines are seen, too.
      const end = place(line.x, right) + 1;
      for (let i = Math.max(0, place(line.x, left) - 1); i < Math.min(end, line.x.length); i++) {
        const y = line.y[i];
        if (Number.isFinite(y) && !(log && y <= 0)) {
          low = Math.min(low, y);
          high = Math.max(high, y);
        }
      }
    }
    if (low > high) return log ? [0.1, 1] : [0, 1];
    if (log) return low === high ? [low / 2, high * 2] : [low / 1.1, high * 1.1];
    if (low === high) return [low - (Math.abs(low) / 2 || 0.5), high + (Math.abs(high) / 2 || 0.5)];
    const space = (high - low) * 0.05;
    return [low >= 0 && low < space * 8 ? 0 : low - space, high + space];
  }

  function axes(low, high, plot) {
    for (const y of log ? logTicks(low, high) : ticks(low, high, 5)) {
      element("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right,
        y1: toY(y), y2: toY(y) }, svg);
      element("text", { x: MARGIN.left - 6, y: toY(y) + 4, "text-anchor": "end" }, svg)
        .textContent = short(y);
    }
    for (const x of ticks(left, right, Math.max(3, plot.width / 80))) {
      if (figure.dataset.x === "epoch" && !Number.isInteger(x)) continue;
      element("text", { x: toX(x), y: plot.bottom + 16, "text-anchor": "middle" }, svg)
        .textContent = short(x);
    }
    element("text", { x: width - MARGIN.right, y: height - 4, "text-anchor": "end" }, svg)
      .textContent = figure.dataset.x;
    element("text", { x: 4, y: 12 }, svg).textContent = figure.dataset.y;
  }

  function drawLine(line, plot) {
    const group = element("g", { class: line.color }, svg);
    const first = Math.max(0, place(line.x, left) - 1);
    const end = Math.min(line.x.length, place(line.x, right) + 1);
    const clip = (x) => Math.max(MARGIN.left - 2, Math.min(width - MARGIN.right + 2, x));
    let path = "", pen = "M", column = null;
    const put = (x, y) => {
      path += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
    };
    const few = end - first < plot.width;
    for (let i = first; i < end; i++) {
      const y = line.y[i];
      if (!Number.isFinite(y) || (log && y <= 0)) {
        pen = "M";
        column = null;
        continue;
      }
      const x = few ? toX(line.x[i]) : Math.round(toX(line.x[i]));
      if (few) {
        put(...within(line, i, x, toY(y), clip));
      } else if (column && column.x === x) {
        // Many points in a column of pixels: the least and the greatest are all that is seen.
        column.low = Math.min(column.low, y);
        column.high = Math.max(column.high, y);
      } else {
        if (column) flush(column);
        column = { x, low: y, high: y };
      }
    }
    if (column) flush(column);
    function flush({ x, low, high }) {
      put(clip(x), toY(high));
      if (low !== high) put(clip(x), toY(low));
    }
    element("path", { d: path }, group);
    if (line.points && end - first < plot.width / 6) {
      for (let i = first; i < end; i++) {
        const x = toX(line.x[i]), y = line.y[i];
        if (Number.isFinite(y) && !(log && y <= 0) && x === clip(x)) {
          element("circle", { cx: x, cy: toY(y), r: 3 }, group);
        }
      }
    } else if (end - first === 1 && path) {
      element("circle", { cx: toX(line.x[first]), cy: toY(line.y[first]), r: 3 }, group);
    }
  }

  // A point outside, moved along its line to the edge.
  function within(line, i, x, y, clip) {
    const edge = clip(x), other = x < edge ? i + 1 : x > edge ? i - 1 : i;
    if (other === i || !Number.isFinite(line.y[other]) || (log && line.y[other] <= 0)) {
      return [edge, y];
    }
    const x2 = toX(line.x[other]), y2 = toY(line.y[other]);
    return [edge, x2 === x ? y : y + ((edge - x) / (x2 - x)) * (y2 - y)];
  }

  function nearest(line, x) {
    const i = place(line.x, x);
    return i && (i === line.x.length || x - line.x[i - 1] <= line.x[i] - x) ? i - 1 : i;
  }

  // The figures at the cursor.
  function point() {
    for (const old of svg.querySelectorAll(".cursor")) old.remove();
    if (at === null || at < left || at > right) {
      output.textContent = HINT;
      return;
    }
    element("line", { class: "cursor", x1: toX(at), x2: toX(at), y1: MARGIN.top,
      y2: height - MARGIN.bottom }, svg);
    const read = lines.filter((line) => line.shown && line.x.length).map((line) => {
      const i = nearest(line, at), y = line.y[i];
      return `${line.name} ${Number.isFinite(y) ? short(y) : "–"}`;
    });
    output.textContent = `${figure.dataset.x} ${short(at)}: ${read.join(" · ")}`;
  }

  function toData(x) {
    const share = (x - MARGIN.left) / (width - MARGIN.left - MARGIN.right);
    return left + Math.max(0, Math.min(1, share)) * (right - left);
  }

  const pixels = (event) => event.clientX - svg.getBoundingClientRect().left;
  const longest = () => lines.filter((line) => line.shown)
    .reduce((a, b) => (b.x.length > (a?.x.length ?? 0) ? b : a), null);

  function readAt(x) {
    const line = longest();
    at = line ? line.x[nearest(line, x)] : null;
    point();
  }

  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    from = pixels(event);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    const x = pixels(event);
    readAt(toData(x));
    svg.querySelector(".chosen")?.remove();
    if (from !== null) {
      element("rect", { class: "chosen", x: Math.min(from, x), width: Math.abs(x - from),
        y: MARGIN.top, height: height - MARGIN.top - MARGIN.bottom }, svg);
    }
  });
  svg.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const ends = [from, pixels(event)].sort((a, b) => a - b);
    from = null;
    if (ends[1] - ends[0] > 5) zoom(...ends.map(toData));
    draw();
  });
  svg.addEventListener("pointercancel", () => {
    from = null;
    draw();
  });
  svg.addEventListener("pointerleave", () => {
    if (from === null) {
      at = null;
      point();
    }
  });
  svg.addEventListener("dblclick", () => {
    zoom(...whole);
    draw();
  });
  svg.addEventListener("keydown", (event) => {
    const line = longest(), centre = at ?? (left + right) / 2;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const factor = { "+": 0.5, "=": 0.5, "-": 2, "−": 2 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !line) return;
    if (step) {
      const i = at === null ? place(line.x, left) : nearest(line, at) + step;
      at = line.x[Math.max(0, Math.min(line.x.length - 1, i))];
      if (at < left || at > right) zoom(at - (right - left) / 2, at + (right - left) / 2);
    } else if (factor) {
      const low = centre - (centre - left) * factor;
      zoom(low, low + (right - left) * factor);
    } else if (event.key === "0" || event.key === "Escape") {
      zoom(...whole);
    } else {
      return;
    }
    event.preventDefault();
    draw();
  });
  new ResizeObserver(() => {
    if (svg.clientWidth !== width) draw();
  }).observe(svg);
}
