// One number over time: a line for each run, with its noise floor, its alerts, and the values at the slider's place.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { h, named } from "./dom.js";
import { shown } from "./format.js";

const HEIGHT = 190;
const FEW_PLACES = 40; // up to as many have a dot each
const DRIFTS = ["drift_ref", "focus_drift", "centroid_shift"]; // measured from the reference
const LINES = { mean: "mean", worst_tenth: "worst tenth", worst_class: "worst class" };
const DASHES = { mean: [], worst_tenth: [6, 3], worst_class: [2, 3] };
const FONT = "11px system-ui, sans-serif";
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000]; // between two labels of the time axis

/** A colour of the page's style: "muted", or "r3" of the fourth run. */
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const runColor = (run) => color(`r${run.index % 10}`);

export class Chart {
  constructor(data, state, metric, places) {
    Object.assign(this, { data, state, metric, places });
    this.lines = this.#visibleLines();
    this.host = h("div", { class: "plot-host" });
    this.output = h("output", { class: "readout", "aria-live": "off" }, this.#readout());
    this.figure = h(
      "figure",
      { class: "plot", role: "group", "aria-label": this.#description(), data: { metric: metric.key } },
      h("figcaption", {}, h("b", {}, named(metric.title, 50)), h("span", { class: "muted" }, metric.meaning)),
      this.host,
      this.output,
    );
  }

  /** Draw into the figure, which is in the page by now and has a width. */
  mount() {
    const { metric, places, state } = this;
    const axes = [this.#timeAxis(), this.#valueAxis()];
    const scales = { x: { time: false, range: timeLimits }, y: { range: (_, low, high) => this.#limits(low, high) } };
    const series = this.lines.map((line) => this.#style(line));
    const values = this.lines.map((line) => line.values);
    if (state.beside && state.beside !== metric.key) {
      scales.beside = {};
      axes.push(this.#besideAxis());
      for (const [run, trainers] of this.#besideSeries()) {
        series.push({
          scale: "beside",
          stroke: runColor(run),
          width: 1,
          dash: [1, 3],
          alpha: 0.9,
          points: { show: false },
        });
        values.push(this.#atPlaces(run, trainers.mean));
      }
    }
    const options = {
      width: this.#width(),
      height: HEIGHT,
      legend: { show: false },
      padding: [10, 12, 0, 0],
      cursor: { sync: { key: "cam" }, drag: { x: false, y: false }, points: { size: 7 } },
      scales,
      axes,
      series: [{}, ...series],
      hooks: {
        drawClear: [(plot) => this.#drawBands(plot)],
        draw: [(plot) => this.#drawMark(plot), (plot) => this.#drawSettled(plot)],
        setCursor: [(plot) => this.#showValues(plot.cursor.idx)],
      },
    };
    this.plot = new uPlot(options, [places, ...values], this.host);
    this.now = h("div", { class: "now" });
    this.plot.over.append(this.now, ...this.#alerts());
    this.#placeAlerts();
    this.plot.over.addEventListener("click", () => this.#choosePlace(this.plot.cursor.idx));
  }

  /** The line at the place of the slider, and the values there. */
  move() {
    this.now.style.transform = `translateX(${this.plot.valToPos(this.state.place, "x")}px)`;
    this.#showValues(null);
  }

  resize() {
    if (this.plot.width !== this.#width()) this.plot.setSize({ width: this.#width(), height: HEIGHT });
    this.#placeAlerts();
    this.move();
  }

  /** { run, kind, values at all places } of everything that is drawn. */
  #visibleLines() {
    const { state, metric } = this;
    const kinds = state.lines === "all" ? Object.keys(LINES) : [state.lines];
    return this.#visibleRuns().flatMap((run) => {
      const series = run.seriesOf(metric.key, state.method, state.layer);
      if (!series) return [];
      const own = kinds.filter((kind) => series[kind]);
      return (own.length ? own : ["mean"]).map((kind) => ({ run, kind, values: this.#atPlaces(run, series[kind]) }));
    });
  }

  #visibleRuns() {
    return this.data.runs.filter((run) => !this.state.hidden.has(run.index));
  }

  /** One value of a run for each place of the chart; null where it has none. */
  #atPlaces(run, values) {
    const valueAt = new Map(run.places.map((place, i) => [place, values[i]]));
    return this.places.map((place) => valueAt.get(place) ?? null);
  }

  #description() {
    const ends = this.lines.map(({ run, kind, values }) => {
      const known = values.filter((value) => value !== null);
      return `${run.name}${kind === "mean" ? "" : ` (${LINES[kind]})`} from ${shown(known[0])} to ${shown(known.at(-1))}`;
    });
    return `${this.metric.title} by ${this.data.axis}: ${ends.join("; ")}`;
  }

  #style({ run, kind }) {
    const stroke = runColor(run);
    const hasDots = this.places.length <= FEW_PLACES && kind === "mean";
    const points = { show: hasDots, size: 6, fill: stroke };
    return { stroke, width: kind === "mean" ? 2 : 1.5, dash: DASHES[kind], points };
  }

  #axis() {
    return { stroke: color("muted"), grid: { stroke: color("faint"), width: 1 }, ticks: { show: false }, font: FONT };
  }

  #timeAxis() {
    const wholeNumbers = (_, splits) => splits.map((value) => (Number.isInteger(value) ? String(value) : ""));
    return { ...this.#axis(), size: 24, gap: 3, incrs: STEPS, values: wholeNumbers };
  }

  #valueAxis() {
    return {
      ...this.#axis(),
      size: 44,
      gap: 4,
      values: (_, splits) => splits.map((it) => String(Number(it.toPrecision(6)))),
    };
  }

  #besideAxis() {
    const label = this.data.numbers[this.state.beside].title.slice(0, 24);
    const place = { scale: "beside", side: 1, size: 40, gap: 4, grid: { show: false } };
    return { ...this.#axis(), ...place, label, labelSize: 14, labelGap: 0, labelFont: FONT };
  }

  /** [run, series] of the trainer's number that is drawn beside. */
  #besideSeries() {
    return this.#visibleRuns()
      .map((run) => [run, run.seriesOf(this.state.beside)])
      .filter(([, series]) => series);
  }

  /** From where to where the values' axis goes: all values, the number's own span, and the noise floor. */
  #limits(low, high) {
    const { span } = this.metric;
    const floors = this.#references().map((reference) => reference.floor * 1.25);
    const all = [low, high, ...(span ?? []), ...floors].filter(Number.isFinite);
    if (!all.length) return [0, 1];
    let [from, to] = [Math.min(...all), Math.max(...all)];
    if (from > 0 && from < 0.6 * to) from = 0;
    if (to - from < 1e-9) [from, to] = [from - Math.abs(from) * 0.1 - 1e-3, to + Math.abs(to) * 0.1 + 1e-3];
    return [from, to + (to - from) * 0.05];
  }

  /** Floor and ceiling of each run that is drawn, where this number is a drift. */
  #references() {
    const { method, layer } = this.state;
    if (!this.metric.key.startsWith("drift_")) return [];
    return this.#drawnRuns().map((run) => {
      const reference = run.reference.find((it) => it.method === method && it.layer === layer);
      return { run, ...reference };
    });
  }

  #drawnRuns() {
    return [...new Set(this.lines.map((line) => line.run))];
  }

  /** The noise floor as a band, floor and ceiling as dashed lines. */
  #drawBands(plot) {
    const { ctx, bbox } = plot;
    const { left, top, width, height } = bbox;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    for (const { run, floor, ceiling } of this.#references()) {
      ctx.fillStyle = ctx.strokeStyle = runColor(run);
      ctx.globalAlpha = 0.13;
      if (Number.isFinite(floor)) ctx.fillRect(left, plot.valToPos(floor, "y", true), width, height);
      ctx.globalAlpha = 0.8;
      ctx.setLineDash([3, 4]);
      for (const edge of [floor, ceiling].filter(Number.isFinite)) drawAcross(plot, plot.valToPos(edge, "y", true));
    }
    ctx.restore();
  }

  /** The value that means something by itself, such as 1 for chance. */
  #drawMark(plot) {
    if (!this.metric.mark) return;
    const [value, word] = this.metric.mark;
    const { ctx, bbox } = plot;
    const { left, top, width, height } = bbox;
    const y = plot.valToPos(value, "y", true);
    if (y < top || y > top + height) return;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = color("muted");
    ctx.setLineDash([4, 4]);
    drawAcross(plot, y);
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = "right";
    ctx.fillText(word, left + width - 2, y - 4 * devicePixelRatio);
    ctx.restore();
  }

  /** Where a run's reference is set, a drift jumps: it is measured from another look from then on. */
  #drawSettled(plot) {
    const { ctx, bbox } = plot;
    if (!DRIFTS.includes(this.metric.key)) return;
    ctx.save();
    ctx.setLineDash([2, 3]);
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    for (const [i, run] of this.#drawnRuns().entries()) {
      const set = run.seriesOf("reference_set", this.state.method, this.state.layer)?.mean ?? [];
      const look = set.findIndex((value) => value === 1);
      if (look <= 0) continue;
      const x = plot.valToPos(run.places[look], "x", true);
      ctx.strokeStyle = ctx.fillStyle = runColor(run);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const isLate = x > bbox.left + bbox.width * 0.7;
      ctx.textAlign = isLate ? "right" : "left";
      ctx.fillText(
        "reference set",
        x + (isLate ? -4 : 4) * devicePixelRatio,
        bbox.top + (12 + 13 * i) * devicePixelRatio,
      );
    }
    ctx.restore();
  }

  /** A mark above the chart where an alert of a run began. */
  #alerts() {
    const { method, layer } = this.state;
    const concerns = (alert) => !alert.method || (alert.method === method && alert.layer === layer);
    return this.#drawnRuns().flatMap((run) => run.alerts.filter(concerns).map((alert) => this.#alertMark(run, alert)));
  }

  #alertMark(run, alert) {
    const start = alert.places[0];
    const title = `${run.name}: ${alert.name}, from ${this.data.axis} ${start}. ${alert.raised}`;
    return h("span", { class: `alert run-${run.index % 10}`, title, data: { place: start } }, "▼");
  }

  #placeAlerts() {
    for (const mark of this.plot.over.querySelectorAll(".alert")) {
      mark.style.left = `${this.plot.valToPos(Number(mark.dataset.place), "x")}px`;
    }
  }

  /** What stands below the chart: a place, a value for each line, the runs' floors and ceilings. */
  #readout() {
    this.placeText = h("span", { class: "muted" });
    this.valueTexts = this.lines.map(() => h("b"));
    const bands = this.#references().filter((reference) => Number.isFinite(reference.floor));
    const floors = listed(bands.map((reference) => reference.floor));
    const ceilings = listed(bands.map((reference) => reference.ceiling));
    return [
      this.placeText,
      this.lines.map((line, i) => this.#valueOf(line, this.valueTexts[i])),
      bands.length > 0 && h("span", { class: "muted" }, `floor ${floors}; ceiling ${ceilings}`),
    ];
  }

  #valueOf({ run, kind }, text) {
    const title = kind === "mean" ? run.name : `${run.name}, ${LINES[kind]}`;
    return h("span", { class: `run-${run.index % 10}`, title }, text, kind === "mean" ? "" : ` ${LINES[kind]}`);
  }

  /** Say below the chart what stands at a place, by default that of the slider. */
  #showValues(index) {
    const at = index ?? this.places.indexOf(this.state.place);
    this.placeText.textContent = `${this.data.axis} ${this.places[at] ?? "–"}`;
    this.lines.forEach(({ values }, i) => (this.valueTexts[i].textContent = shown(values[at])));
  }

  #choosePlace(index) {
    if (index !== null) this.state.set({ place: nearest(this.data.places, this.places[index]) });
  }

  #width() {
    return Math.max(160, this.host.clientWidth || 300);
  }
}

const timeLimits = (_, low, high) => (low === high ? [low - 0.5, high + 0.5] : [low, high]);

function drawAcross({ ctx, bbox }, y) {
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
}

/** A few values, or from the lowest to the highest of many. */
function listed(values) {
  if (values.length <= 3) return values.map(shown).join(", ");
  return `${shown(Math.min(...values))} to ${shown(Math.max(...values))}`;
}

const nearest = (places, at) =>
  places.reduce((best, it) => (Math.abs(it - at) < Math.abs(best - at) ? it : best), places[0]);
