/* The plots of learn/plots.md: lines in SVG, drawn anew when a slider moves. */
(() => {
  "use strict";
  const WIDTH = 640, HEIGHT = 300, LEFT = 64, BOTTOM = 46, TOP = 12, RIGHT = 12;
  const COLORS = ["var(--pst-color-primary)", "var(--pst-color-danger)", "var(--pst-color-success)"];
  const DASHES = ["", "7 4", "2 4"];
  const sigmoid = (a) => 1 / (1 + Math.exp(-a));

  /* By what a step multiplies a gradient, at rest. */
  const rates = ({ v, bias }) => {
    const s = sigmoid(bias);
    return { RNN: v, LSTM: s + v / 4, GRU: s + ((1 - s) * v) / 2 };
  };

  const gradients = (given) => {
    const lines = {};
    for (const [cell, rate] of Object.entries(rates(given)))
      lines[`${cell} (${rate.toFixed(2)} a step)`] = Array.from(
        { length: given.steps + 1 }, (_, t) => t * Math.log10(Math.max(rate, 1e-12)));
    return { lines, low: -10, high: 5, tick: (y) => `1e${y}`, every: 5, label: "norm" };
  };

  const gates = ({ f, i, o }) => {
    const c = [], h = [];
    for (let t = 0; t <= 50; t++) {
      const g = t === 5 || t === 25 ? 1 : 0;
      c.push(f * (c[t - 1] ?? 0) + i * g);
      h.push(o * Math.tanh(c[t]));
    }
    return { lines: { "c": c, "h = o tanh(c)": h }, low: 0, high: 2, tick: (y) => y, every: 0.5, label: "" };
  };

  const element = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };

  const draw = (svg, { lines, low, high, tick, every, label }) => {
    const last = Object.values(lines)[0].length - 1;
    const x = (t) => LEFT + ((WIDTH - LEFT - RIGHT) * t) / last;
    const y = (value) =>
      TOP + ((HEIGHT - TOP - BOTTOM) * (high - Math.min(Math.max(value, low), high))) / (high - low);
    svg.replaceChildren();
    for (let value = low; value <= high; value += every) {
      svg.append(element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" }));
      svg.append(element("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, tick(value)));
    }
    for (let t = 0; t <= last; t += last / 5)
      svg.append(element("text", { x: x(t), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, Math.round(t)));
    svg.append(element("text", { x: WIDTH / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "step"));
    svg.append(element("text", { x: LEFT + 4, y: TOP + 20 }, label));
    Object.entries(lines).forEach(([name, values], n) => {
      const points = values.map((value, t) => `${x(t).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
      const style = { stroke: COLORS[n], "stroke-dasharray": DASHES[n] };
      svg.append(element("polyline", { points, fill: "none", "stroke-width": 2.5, ...style }));
      const at = TOP + 20 + 22 * n, from = WIDTH - 236;
      svg.append(element("line", { x1: from, x2: from + 30, y1: at - 4, y2: at - 4, "stroke-width": 2.5, ...style }));
      svg.append(element("text", { x: from + 38, y: at }, name));
    });
  };

  const KINDS = { gradients, gates };
  for (const plot of document.querySelectorAll(".plot")) {
    const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" });
    const inputs = [...plot.querySelectorAll("input")];
    const shown = inputs.map((input) => {
      const output = document.createElement("output");
      input.after(output);
      return output;
    });
    const update = () => {
      const given = Object.fromEntries(inputs.map((input) => [input.name, Number(input.value)]));
      inputs.forEach((input, n) => { shown[n].textContent = input.value; });
      draw(svg, KINDS[plot.dataset.plot](given));
    };
    plot.append(svg);
    plot.addEventListener("input", update);
    update();
  }
  window.fastrnnPlots = { rates, gates, gradients };
})();
