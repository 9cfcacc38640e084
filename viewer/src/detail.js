// One image: all methods and layers of all runs at one epoch, and its predictions over time; of the mean, where the focus moved.
import { MEAN } from "./data.js";
import { h, named, shorten, swatch } from "./dom.js";
import { percent, shown } from "./format.js";
import { order } from "./order.js";
import { divergingBytes, label, outlineCells, overlay, table as colours } from "./paint.js";
import { Panel } from "./panel.js";
import { pixels } from "./pictures.js";
import { saveGif } from "./share.js";

export function detail(data, state) {
  const title = h("h2", { id: "detail-title" });
  const body = h("div", { class: "detail-body" });
  const where = h("output", { class: "where" });
  const turn = (by) => {
    const images = [MEAN, ...order(data, state, visible())];
    const at = images.indexOf(state.detail);
    state.set({ detail: images[(at + by + images.length) % images.length] });
  };
  const dialog = h(
    "dialog",
    {
      "aria-labelledby": "detail-title",
      onclose: () => state.set({ detail: null }),
      onclick: (event) => event.target === dialog && dialog.close(),
    },
    h(
      "header",
      {},
      title,
      where,
      h("button", { type: "button", class: "tool", onclick: () => turn(-1) }, "‹ image before"),
      h("button", { type: "button", class: "tool", onclick: () => turn(1) }, "next image ›"),
      h(
        "button",
        {
          type: "button",
          class: "tool",
          title: "This image over time, as an animation",
          onclick: () => saveGif(data, state, state.detail),
        },
        "GIF",
      ),
      h("button", { type: "button", class: "close", onclick: () => dialog.close() }, "Close"),
    ),
    body,
  );
  const visible = () => data.runs.filter((run) => run.probeIndex === state.probe && !state.hidden.has(run.index));
  let drawn = [];

  function fill() {
    const runs = visible();
    const image = state.detail;
    const probe = data.probes[state.probe];
    if (image >= probe.ids.length || !runs.length) return void state.set({ detail: null });
    const of = probe.labels && image !== MEAN ? `${data.className(probe, probe.labels[image])} · ` : "";
    title.replaceChildren(named(`${of}${data.imageName(probe, image)}`, 80));
    const pairs = data.methods.flatMap((method) => data.layers(method).map((layer) => [method, layer]));
    drawn = [];
    const add = (it) => (drawn.push(it), it.element);
    body.replaceChildren(
      section(
        "All methods and layers",
        matrix(runs, pairs, (run, pair) => add(new Panel(data, local(pair), run, image, () => {}, pair))),
      ),
      ...(image === MEAN
        ? shifts(runs, pairs, add)
        : [
            section(
              "Prediction over time",
              runs.map((run) => add(new Outcomes(data, state, run, image))),
            ),
          ]),
    );
    body.classList.toggle("few", runs.length <= 2);
    if (!dialog.open) dialog.showModal();
    body.scrollTop = 0;
    draw();
  }
  /** The user's choices, with another method and layer. */
  const local = ([method, layer]) =>
    new Proxy(state, { get: (target, key) => (key === "method" ? method : key === "layer" ? layer : target[key]) });

  function shifts(runs, pairs, add) {
    const having = pairs.filter(([method, layer]) => runs.some((run) => run.field(method, layer)?.shift));
    if (!having.length) return [];
    return [
      section(
        "Where the focus moved since the reference, in all images together",
        h(
          "p",
          { class: "muted" },
          "Paired t of each cell (max-t); outlined: significant at 5 % for all cells at once.",
        ),
        matrix(runs, having, (run, pair) => add(new Shift(data, state, run, pair))),
      ),
    ];
  }

  function draw() {
    where.textContent = `${data.axis} ${state.place}`;
    for (const it of drawn) it.draw();
  }

  state.listen((keys) => {
    if (state.detail === null) return void (dialog.open && dialog.close());
    if (keys.has("detail") || keys.has("hidden") || keys.has("probe")) fill();
    else draw();
  });
  queueMicrotask(() => state.detail !== null && fill());
  return { element: dialog };
}

const section = (title, ...children) =>
  h("section", { class: /^(Prediction|Where)/.test(title) ? "whole" : undefined }, h("h3", {}, title), children);

/** Runs across, methods and layers down. */
function matrix(runs, pairs, panel) {
  const layers = new Set(pairs.map(([, layer]) => layer));
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "methods and runs" },
    h(
      "div",
      { class: "matrix", vars: { runs: runs.length } },
      h("span", {}),
      runs.map((run) => h("span", { class: "runname" }, swatch(run.index), named(run.name, 26))),
      pairs.map((pair) => [
        h(
          "span",
          { class: "pair" },
          h("b", {}, pair[0]),
          layers.size > 1 && h("span", { class: "muted" }, ` ${shorten(pair[1], 24)}`),
        ),
        runs.map((run) => panel(run, pair)),
      ]),
    ),
  );
}

/** What a run said of an image at each look: the bar's height is the confidence, its colour right or wrong. */
class Outcomes {
  constructor(data, state, run, image) {
    Object.assign(this, { data, state, run, image });
    this.text = h("span", { class: "muted" });
    this.bars = new Map(data.places.map((place) => [place, this.#bar(place)]));
    this.element = h(
      "div",
      { class: "outcomes" },
      h("span", { class: "runname" }, swatch(run.index), named(run.name, 26)),
      h("div", { class: "bars" }, [...this.bars.values()]),
      this.text,
    );
  }

  #bar(place) {
    const { data, state, run, image } = this;
    const outcome = run.outcome(run.frame(place), image);
    if (!outcome) return h("span", { class: "bar-none", title: `${data.axis} ${place}: nothing known` });
    const title = `${data.axis} ${place}: ${predictionWords(data, run, outcome)}`;
    return h("button", {
      type: "button",
      class: outcome.wrong ? "outcome wrong" : "outcome",
      title,
      "aria-label": title,
      vars: { sure: `${Math.round((outcome.confidence ?? 1) * 100)}%` },
      onclick: () => state.set({ place }),
    });
  }

  draw() {
    for (const [place, bar] of this.bars) bar.classList.toggle("here", place === this.state.place);
    const outcome = this.run.outcome(this.run.frame(this.state.place), this.image);
    this.text.textContent = outcome ? predictionWords(this.data, this.run, outcome) : "no prediction";
  }
}

function predictionWords(data, run, { prediction, confidence, wrong }) {
  return `${data.className(run.probe, prediction)}, ${percent(confidence)}${wrong ? ", wrong" : ""}`;
}

/** The max-t map of a run: gained and lost focus, significant cells outlined. */
class Shift {
  constructor(data, state, run, [method, layer]) {
    Object.assign(this, { data, state, run, field: run.field(method, layer) });
    this.canvas = h("canvas", { width: 240, height: 240 });
    this.canvas.style.aspectRatio = `${run.probe.width} / ${run.probe.height}`;
    this.canvas.height = Math.round((240 * run.probe.height) / run.probe.width);
    this.caption = h("span", { class: "caption" });
    this.element = h("div", { class: "panel", role: "img" }, this.canvas, this.caption);
  }

  draw() {
    const { run, field, state, data, canvas } = this;
    const frame = run.frame(state.place);
    const known = field?.shift && frame >= 0 && Number.isFinite(field.shift.critical[frame]);
    const plain = pixels({}, 0, false, canvas.width, canvas.height);
    if (!known) {
      overlay(canvas, plain, null);
      this.caption.textContent = "nothing to compare";
      return label(canvas, `${data.axis} ${state.place}`);
    }
    const t = field.shift.t().subarray(frame * field.cells, (frame + 1) * field.cells);
    const limit = Math.max(field.shift.critical[frame] * 1.5, ...t.map(Math.abs));
    overlay(canvas, plain, {
      levels: t.map((it) => 127.5 + (it / limit) * 127.5),
      grid: field.grid,
      colours: colours(divergingBytes),
      opacity: 1,
      cells: true,
    });
    const significant = t.filter((it) => Math.abs(it) >= field.shift.critical[frame]).length;
    outlineCells(canvas, field.grid, (cell) => Math.abs(t[cell]) >= field.shift.critical[frame], "#111");
    this.caption.textContent = `p ${shown(field.shift.p[frame])} · ${significant} of ${field.cells} cells`;
    this.element.setAttribute(
      "aria-label",
      `${field.method} of ${run.name}: ${this.caption.textContent} moved significantly`,
    );
  }
}
