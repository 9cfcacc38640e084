// Numbers over time: a small chart for each, those that matter most in sight.
import { Chart } from "./chart.js";
import { h, named, onTheme, refill, select, swatch } from "./dom.js";
import { afterPaint, inSight } from "./sight.js";

const REBUILT_BY = ["method", "layer", "hidden", "lines", "beside"]; // choices that change what the charts hold
const LINE_CHOICES = [
  ["mean", "mean over images"],
  ["worst_tenth", "worst tenth"],
  ["worst_class", "worst class"],
  ["all", "all three"],
];

export function curves(data, state) {
  const places = [...new Set(data.runs.flatMap((run) => run.places))].sort((a, b) => a - b);
  const first = h("div", { class: "plots" });
  const rest = h("div", { class: "plots" });
  const more = h("details", { ontoggle: () => more.open && build() }, h("summary", {}, "All numbers"), rest);
  const chosen = h("div", { class: "choices" });
  let charts = [];

  const destroy = () => charts.forEach((chart) => chart.plot.destroy());
  const move = () => sight.draw();

  function build() {
    destroy();
    charts = [];
    const metrics = Object.values(data.numbers).filter((number) => number.curve && hasValues(data, state, number.key));
    fill(
      first,
      metrics.filter((metric) => metric.headline),
    );
    const others = metrics.filter((metric) => !metric.headline);
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

  const section = h(
    "section",
    { class: "curves", "aria-label": "Curves" },
    h("h2", {}, "Curves"),
    data.runs.length > 1 && runSwitches(data, state),
    chosen,
    first,
    more,
  );
  state.listen((keys) => {
    if (REBUILT_BY.some((key) => keys.has(key))) build();
    else if (keys.has("place")) move();
  });
  const deaf = onTheme(build);
  const resized = new ResizeObserver(() => charts.forEach((chart) => chart.resize()));
  const sight = inSight(section, () => charts.forEach((chart) => chart.move()));
  afterPaint(() => {
    build();
    resized.observe(section);
  });

  function stop() {
    deaf();
    resized.disconnect();
    sight.stop();
    destroy();
  }
  return { element: section, stop };
}

function hasValues(data, state, metric) {
  return data.runs.some((run) => run.seriesOf(metric, state.method, state.layer)?.mean.some((value) => value !== null));
}

/** Which lines are drawn, and which number of the trainer's beside them. */
function choices(data, state) {
  const series = data.runs.flatMap((run) => run.series);
  const users = Object.values(data.numbers).filter((number) =>
    series.some((it) => it.user && it.metric === number.key),
  );
  const besides = [["", "nothing"], ...users.map((number) => [number.key, number.title])];
  const hint = "Draw a number of the trainer's into every chart, on an axis at its right";
  return [
    series.some((it) => it.worst_tenth || it.worst_class) &&
      select("Lines", LINE_CHOICES, state.lines, (lines) => state.set({ lines })),
    users.length > 0 && select("Beside", besides, state.beside, (beside) => state.set({ beside }), hint),
  ].filter(Boolean);
}

function runSwitches(data, state) {
  const attributes = { class: "chips", role: "group", "aria-label": "Runs: show or hide" };
  return h(
    "div",
    attributes,
    data.runs.map((run) => runSwitch(state, run)),
  );
}

function runSwitch(state, run) {
  const isVisible = () => String(!state.hidden.has(run.index));
  const toggle = () => {
    const hidden = new Set(state.hidden);
    if (!hidden.delete(run.index)) hidden.add(run.index);
    state.set({ hidden });
    button.setAttribute("aria-pressed", isVisible());
  };
  const attributes = { type: "button", class: "chip", "aria-pressed": isVisible(), onclick: toggle };
  const button = h("button", attributes, swatch(run.index), named(run.name, 32));
  return button;
}
