// What is to be known in ten seconds: a sentence a run, what was raised, and what could not be judged.
import { h, named, swatch } from "./dom.js";

const SIGNS = { alarm: ["▲", "something is wrong"], clear: ["✓", "no alert"], open: ["○", "not judged on the object"] };

export function verdicts(data, state) {
  return h(
    "div",
    { class: "verdicts" },
    h(
      "ul",
      { "aria-label": "Verdicts", class: data.runs.length > 3 ? "many" : undefined },
      data.runs.map((run) => verdict(data, run)),
    ),
    more(data, state),
  );
}

function verdict(data, run) {
  const [sign, meaning] = SIGNS[run.verdict.state];
  return h(
    "li",
    { class: `verdict ${run.verdict.state}`, data: { run: run.index } },
    h("span", { class: "sign", role: "img", "aria-label": meaning, title: meaning }, sign),
    h(
      "span",
      {},
      data.runs.length > 1 && [swatch(run.index), h("b", {}, named(run.name, 40)), ": "],
      run.verdict.text.replaceAll(" %", "\u00a0%"),
    ),
  );
}

/** Alerts in full, as links to what they speak of, and rules that cannot judge. */
function more(data, state) {
  const raised = data.runs.reduce((sum, run) => sum + run.alerts.length, 0);
  const silent = data.runs.some((run) => run.unjudged.length);
  if (!raised && !silent) return null;
  const words = [raised && `${raised} alert${raised === 1 ? "" : "s"}`, silent && "what cannot be judged"];
  return h(
    "details",
    { class: "more" },
    h("summary", {}, words.filter(Boolean).join(", ")),
    raised > 0 &&
      h(
        "ul",
        { class: "alerts", "aria-label": "Alerts" },
        data.runs.map((run) => run.alerts.map((it) => alert(data, state, run, it))),
      ),
    silent &&
      h(
        "ul",
        { class: "unjudged muted", "aria-label": "What cannot be judged" },
        data.runs.map((run) => run.unjudged.map((it) => unjudged(data, run, it))),
      ),
  );
}

function alert(data, state, run, it) {
  const since = it.places[0];
  const texts = [
    h("span", {}, `when raised: ${it.raised}. `),
    it.now
      ? it.now !== it.raised && h("span", {}, `now: ${it.now}. `)
      : h("span", {}, `cleared at ${data.axis} ${it.cleared}. `),
    h("span", { class: "muted" }, it.advice),
  ];
  return h(
    "li",
    {},
    h(
      "button",
      {
        type: "button",
        class: "link",
        title: "show where it began, worst images first",
        onclick: () => follow(data, state, it),
      },
      h("b", { class: "word" }, "▲ ", named(it.name, 40)),
    ),
    " ",
    swatch(run.index),
    named(run.name, 40),
    ` since ${data.axis} ${since}: `,
    texts,
  );
}

const unjudged = (data, run, it) =>
  h(
    "li",
    {},
    data.runs.length > 1 && [swatch(run.index), named(run.name, 40), ": "],
    `${it.rules.map((rule) => rule.replaceAll("_", " ")).join(", ")} cannot be judged: ${it.reason}.`,
  );

/** Which images an alert is about, in the words of `order.js`. */
export const SORT_OF = {
  off_target: "target",
  background_decides: "target",
  nuisance_decides: "nuisance",
  focus_moved: "drift",
  follows_changed: "drift",
  collapsed: "entropy",
};

function follow(data, state, it) {
  const place = data.places.reduce((best, at) =>
    Math.abs(at - it.places[0]) < Math.abs(best - it.places[0]) ? at : best,
  );
  const choice = { place, at: place, filter: "all", class: "", group: "", search: "" };
  if (it.method) Object.assign(choice, { method: it.method, layer: it.layer });
  if (SORT_OF[it.rule]) choice.sort = SORT_OF[it.rule];
  state.set(choice);
  document.querySelector("section.images").scrollIntoView({ block: "start" });
}
