// Numbers over time: one small chart for each, all runs in it.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { h, named, refill, select, swatch } from "./dom.js";
import { shown } from "./format.js";

const HEIGHT = 190;
const LINES = { mean: "mean", worst_tenth: "worst tenth", worst_class: "worst class" };
const DASH = { mean: [], worst_tenth: [6, 3], worst_class: [2, 3] };

export function curves(data, state) {
  const places = [...new Set(data.runs.flatMap((run) => run.places))].sort((a, b) => a - b);
  const first = h("div", { class: "plots" });
  const rest = h("div", { class: "plots" });
  const more = h("details", { ontoggle: () => more.open && build() }, h("summary", {}, "More numbers"), rest);
  const chosen = h("div", { class: "choices" });
  let charts = [];

  function build() {
    for (const chart of charts) chart.plot.destroy();
    charts = [];
    const metrics = Object.values(data.numbers).filter((it) => it.curve && has(data, state, it.key));
    fill(first, metrics.filter((it) => it.headline));
    const others = metrics.filter((it) => !it.headline);
    more.hidden = !others.length;
    fill(rest, more.open ? others : []);
    refill(chosen, choices(data, state));
    move();
  }
  function fill(box, metrics) {
    box.replaceChildren();
    for (const metric of metrics) {
      const chart = new Chart(data, state, metric, places);
      box.append(chart.figure);
      chart.mount();
      charts.push(chart);
    }
  }
  const move = () => charts.forEach((chart) => chart.move());

  const chips = data.runs.length > 1 && h("div", { class: "chips", role: "group", "aria-label": "Runs: show or hide" }, data.runs.map((run) => chip(state, run)));
  const section = h("section", { class: "curves", "aria-label": "Curves" }, h("h2", {}, "Curves"), chips, chosen, first, more);
  state.listen((keys) => {
    if (["method", "layer", "hidden", "lines", "beside"].some((key) => keys.has(key))) build();
    else if (keys.has("place")) move();
  });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", build);
  const resized = new ResizeObserver(() => charts.forEach((chart) => chart.resize()));
  queueMicrotask(() => {
    build();
    resized.observe(section);
  });
  return { element: section, stop: () => (dark.removeEventListener("change", build), resized.disconnect(), charts.forEach((it) => it.plot.destroy())) };
}

const has = (data, state, metric) => data.runs.some((run) => run.seriesOf(metric, state.method, state.layer)?.mean.some((it) => it !== null));

function choices(data, state) {
  const users = Object.values(data.numbers).filter((it) => data.runs.some((run) => run.series.some((s) => s.user && s.metric === it.key)));
  const aggregated = data.runs.some((run) => run.series.some((it) => it.worst_tenth || it.worst_class));
  return [
    aggregated && select("Lines", [["mean", "mean over images"], ["worst_tenth", "worst tenth"], ["worst_class", "worst class"], ["all", "all three"]], state.lines, (lines) => state.set({ lines })),
    users.length > 0 && select("Beside", [["", "nothing"], ...users.map((it) => [it.key, it.title])], state.beside, (beside) => state.set({ beside }), "Draw a number of the trainer's into every chart, on an axis at its right"),
  ].filter(Boolean);
}

function chip(state, run) {
  const button = h("button", { type: "button", class: "chip", "aria-pressed": String(!state.hidden.has(run.index)), onclick: () => {
    const hidden = new Set(state.hidden);
    if (!hidden.delete(run.index)) hidden.add(run.index);
    state.set({ hidden });
    button.setAttribute("aria-pressed", String(!hidden.has(run.index)));
  } }, swatch(run.index), named(run.name, 32));
  return button;
}

class Chart {
  constructor(data, state, metric, places) {
    Object.assign(this, { data, state, metric, places });
    this.lines = this.#collect();
    this.host = h("div", { class: "plot-host" });
    this.output = h("output", { class: "readout", "aria-live": "off" }, this.#readout());
    this.figure = h("figure", { class: "plot", role: "group", "aria-label": this.#words(), data: { metric: metric.key } },
      h("figcaption", {}, h("b", {}, named(metric.title, 50)), h("span", { class: "muted" }, metric.meaning)), this.host, this.output);
  }

  /** { run, kind, values at all places } of everything that is drawn. */
  #collect() {
    const { state, metric } = this;
    const kinds = state.lines === "all" ? Object.keys(LINES) : [state.lines];
    const found = [];
    for (const run of this.data.runs.filter((it) => !state.hidden.has(it.index))) {
      const series = run.seriesOf(metric.key, state.method, state.layer);
      if (!series) continue;
      const own = kinds.filter((kind) => series[kind]);
      for (const kind of own.length ? own : ["mean"]) found.push({ run, kind, values: this.#along(run, series[kind]) });
    }
    return found;
  }

  #along(run, values) {
    const at = new Map(run.places.map((place, i) => [place, values[i]]));
    return this.places.map((place) => at.get(place) ?? null);
  }

  #words() {
    const ends = this.lines.map(({ run, kind, values }) => {
      const known = values.filter((it) => it !== null);
      return `${run.name}${kind === "mean" ? "" : ` (${LINES[kind]})`} from ${shown(known[0])} to ${shown(known.at(-1))}`;
    });
    return `${this.metric.title} by ${this.data.axis}: ${ends.join("; ")}`;
  }

  mount() {
    const { data, state, metric, places } = this;
    const style = getComputedStyle(document.documentElement);
    const css = (name) => style.getPropertyValue(`--${name}`).trim();
    const few = places.length <= 40;
    const series = this.lines.map(({ run, kind }) => ({ stroke: css(`r${run.index % 10}`), width: kind === "mean" ? 2 : 1.5, dash: DASH[kind], points: { show: few && kind === "mean", size: 6, fill: css(`r${run.index % 10}`) } }));
    const values = this.lines.map((it) => it.values);
    const axis = { stroke: css("muted"), grid: { stroke: css("faint"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const axes = [
      { ...axis, size: 24, gap: 3, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000], values: (_, splits) => splits.map((it) => (Number.isInteger(it) ? String(it) : "")) },
      { ...axis, size: 44, gap: 4, values: (_, splits) => splits.map((it) => String(Number(it.toPrecision(6)))) },
    ];
    const scales = { x: { time: false, range: (_, low, high) => (low === high ? [low - 0.5, high + 0.5] : [low, high]) }, y: { range: (_, low, high) => this.#limits(low, high) } };
    if (state.beside && state.beside !== metric.key) this.#beside(series, values, axes, scales, axis, css);
    this.plot = new uPlot({
      width: this.#width(), height: HEIGHT, legend: { show: false }, padding: [10, 12, 0, 0],
      cursor: { sync: { key: "cam" }, drag: { x: false, y: false }, points: { size: 7 } },
      scales, axes, series: [{}, ...series],
      hooks: { drawClear: [(u) => this.#bands(u, css)], draw: [(u) => this.#marks(u, css)], setCursor: [(u) => this.#read(u.cursor.idx)] },
    }, [places, ...values], this.host);
    this.now = h("div", { class: "now" });
    this.plot.over.append(this.now, ...this.#alerts());
    this.#placeAlerts();
    this.plot.over.addEventListener("click", () => {
      if (this.plot.cursor.idx !== null) state.set({ place: nearest(data.places, places[this.plot.cursor.idx]) });
    });
  }

  #beside(series, values, axes, scales, axis, css) {
    const { state, data } = this;
    for (const run of data.runs.filter((it) => !state.hidden.has(it.index))) {
      const beside = run.seriesOf(state.beside);
      if (!beside) continue;
      series.push({ scale: "beside", stroke: css(`r${run.index % 10}`), width: 1, dash: [1, 3], alpha: 0.9, points: { show: false } });
      values.push(this.#along(run, beside.mean));
    }
    scales.beside = {};
    axes.push({ ...axis, scale: "beside", side: 1, size: 40, gap: 4, grid: { show: false }, label: data.numbers[state.beside].title.slice(0, 24), labelSize: 14, labelGap: 0, labelFont: axis.font });
  }

  #limits(low, high) {
    const { span } = this.metric;
    const floors = this.#references().map((it) => it.floor * 1.25);
    const all = [low, high, ...(span ?? []), ...floors].filter(Number.isFinite);
    if (!all.length) return [0, 1];
    let [from, to] = [Math.min(...all), Math.max(...all)];
    if (from > 0 && from < 0.6 * to) from = 0;
    if (to - from < 1e-9) [from, to] = [from - Math.abs(from) * 0.1 - 1e-3, to + Math.abs(to) * 0.1 + 1e-3];
    return [from, to + (to - from) * 0.05];
  }

  /** Floor and ceiling of each run that is drawn, where this number is a drift. */
  #references() {
    const { state } = this;
    if (!this.metric.key.startsWith("drift_")) return [];
    return [...new Set(this.lines.map((it) => it.run))].map((run) => ({ run, ...run.reference.find((it) => it.method === state.method && it.layer === state.layer) }));
  }

  #bands(u, css) {
    const { ctx } = u;
    const { left, top, width, height } = u.bbox;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    for (const { run, floor, ceiling } of this.#references()) {
      ctx.fillStyle = ctx.strokeStyle = css(`r${run.index % 10}`);
      ctx.globalAlpha = 0.13;
      if (Number.isFinite(floor)) ctx.fillRect(left, u.valToPos(floor, "y", true), width, height);
      ctx.globalAlpha = 0.8;
      ctx.setLineDash([3, 4]);
      for (const edge of [floor, ceiling].filter(Number.isFinite)) {
        const y = u.valToPos(edge, "y", true);
        ctx.beginPath();
        ctx.moveTo(left, y);
        ctx.lineTo(left + width, y);
        ctx.stroke();
      }
    }
    ctx.restore();
  }

  #marks(u, css) {
    if (!this.metric.mark) return;
    const [value, word] = this.metric.mark;
    const y = u.valToPos(value, "y", true);
    const { left, top, width, height } = u.bbox;
    if (y < top || y > top + height) return;
    const { ctx } = u;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = css("muted");
    ctx.setLineDash([4, 4]);
    ctx.beginPath();
    ctx.moveTo(left, y);
    ctx.lineTo(left + width, y);
    ctx.stroke();
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = "right";
    ctx.fillText(word, left + width - 2, y - 4 * devicePixelRatio);
    ctx.restore();
  }

  /** A mark above the chart where an alert of a run began. */
  #alerts() {
    return this.lines.filter((it, i, all) => all.findIndex((other) => other.run === it.run) === i).flatMap(({ run }) => run.alerts.filter((alert) => !alert.method || (alert.method === this.state.method && alert.layer === this.state.layer)).map((alert) => h("span", { class: `alert run-${run.index % 10}`, title: `${run.name}: ${alert.name}, from ${this.data.axis} ${alert.places[0]}. ${alert.text}`, data: { place: alert.places[0] } }, "▼")));
  }

  /** The line at the place of the slider, and the values there. */
  move() {
    this.now.style.transform = `translateX(${this.plot.valToPos(this.state.place, "x")}px)`;
    this.#read(null);
  }

  #readout() {
    const bands = this.#references().filter((it) => Number.isFinite(it.floor));
    this.told = h("span", { class: "muted" });
    this.values = this.lines.map(() => h("b"));
    return [this.told,
      this.lines.map(({ run, kind }, i) => h("span", { class: `run-${run.index % 10}`, title: `${run.name}${kind === "mean" ? "" : `, ${LINES[kind]}`}` }, this.values[i], kind === "mean" ? "" : ` ${LINES[kind]}`)),
      bands.length > 0 && h("span", { class: "muted" }, `floor ${listed(bands.map((it) => it.floor))}; ceiling ${listed(bands.map((it) => it.ceiling))}`)];
  }

  /** Say below the chart what stands at a place, by default that of the slider. */
  #read(index) {
    const at = index ?? this.places.indexOf(this.state.place);
    this.told.textContent = `${this.data.axis} ${this.places[at] ?? "–"}`;
    this.lines.forEach(({ values }, i) => (this.values[i].textContent = shown(values[at])));
  }

  #width() {
    return Math.max(160, this.host.clientWidth || 300);
  }

  resize() {
    if (this.plot.width !== this.#width()) this.plot.setSize({ width: this.#width(), height: HEIGHT });
    this.#placeAlerts();
    this.move();
  }

  #placeAlerts() {
    for (const mark of this.plot.over.querySelectorAll(".alert")) mark.style.left = `${this.plot.valToPos(Number(mark.dataset.place), "x")}px`;
  }
}

/** A few values, or from the lowest to the highest of many. */
const listed = (values) => (values.length <= 3 ? values.map(shown).join(", ") : `${shown(Math.min(...values))} to ${shown(Math.max(...values))}`);

const nearest = (places, at) => places.reduce((best, it) => (Math.abs(it - at) < Math.abs(best - at) ? it : best), places[0]);
