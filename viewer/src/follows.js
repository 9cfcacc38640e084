// What the prediction follows: the exchange tests as bars with intervals, and pairs that followed what should not decide.
import { h, named, swatch, tailed } from "./dom.js";
import { percent } from "./format.js";
import { inSight } from "./sight.js";

// In the order of the page; of a map's places only those of the chosen method.
const PARTS = {
  object_share: [
    "object against background",
    "Of the exchanges that object or background wins: how often the object does",
  ],
  object: ["the object", "The object of another image, in this one"],
  background: ["the background", "The object of this image, in another one"],
  nuisance: ["the suspected region", "What is under suspicion, from another image"],
  frame: ["the outermost pixels", "The outer sixteenth of each side, from another image"],
  detail: ["fine detail", "Spatial frequencies above 0.15 cycles a pixel, from another image"],
  focus: ["where the map is highest", "A tenth of the picture, from another image"],
  random: ["a random place as large", "What any region of this size does"],
};
const OF_MIXTURES = { background: "the background", nuisance: "the suspected region", frame: "the outermost pixels" };

export function follows(data, state) {
  const bars = h("div", { class: "follow-bars" });
  const mixed = h("div", { class: "mixtures" });
  const runs = () => data.runs.filter((run) => !state.hidden.has(run.index));
  const element = h(
    "div",
    { class: "follows", role: "group", "aria-label": "What the prediction follows" },
    h("h2", {}, "What the prediction follows"),
    bars,
    mixed,
  );

  function fill() {
    const shown = runs();
    const parts = Object.keys(PARTS).filter((part) => shown.some((run) => testOf(run, part, state)));
    if (!parts.length) bars.replaceChildren(h("p", { class: "muted" }, whyNot(shown)));
    else if (shown.every((run) => parts.every((part) => !pairsOf(run, part, state))))
      bars.replaceChildren(
        h("p", { class: "muted" }, "No pair of images to compare here: the model gives all of them the same class."),
      );
    else
      bars.replaceChildren(
        h(
          "p",
          { class: "muted" },
          "Two images exchange a part: how often the prediction goes with it. Line: 95 % interval.",
        ),
        ...parts.map((part) => row(data, state, shown, part)),
      );
  }

  const sight = inSight(bars, fill);
  state.listen((keys) => ["place", "method", "layer", "hidden"].some((key) => keys.has(key)) && sight.draw());
  mixed.replaceChildren(...data.runs.map((run) => mixtures(data, state, run)).filter(Boolean));
  state.listen((keys) => {
    if (keys.has("hidden")) for (const it of mixed.children) it.hidden = state.hidden.has(Number(it.dataset.run));
  });
  sight.draw();
  return { element, stop: sight.stop };
}

const testOf = (run, part, state) =>
  run.follows.find(
    (it) => it.part === part && (!it.method || (it.method === state.method && it.layer === state.layer)),
  );

/** Over how many pairs a test's number is at this place. */
function pairsOf(run, part, state) {
  return testOf(run, part, state)?.n[lookAt(run, state)] ?? 0;
}

const lookAt = (run, state) => run.places.findLastIndex((place) => place <= state.place);

function row(data, state, shown, part) {
  const [title, hint] = PARTS[part];
  return h(
    "div",
    { class: "follow", title: hint, data: { part } },
    h("span", { class: "followed" }, title),
    h(
      "div",
      {},
      shown.map((run) => bar(data, state, run, part)),
    ),
  );
}

function bar(data, state, run, part) {
  const test = testOf(run, part, state);
  const look = lookAt(run, state);
  const [mean, low, high, n] = ["mean", "low", "high", "n"].map((name) => test?.[name][look]);
  const known = Number.isFinite(mean);
  const interval = Number.isFinite(low) ? `, interval ${percent(low)} to ${percent(high)}` : "";
  const said = known
    ? `${run.name}: ${percent(mean)}${interval}, ${n} pairs`
    : `${run.name}: not tested at ${data.axis} ${state.place}`;
  return h(
    "div",
    { class: `bar-of run-${run.index % 10}`, role: "img", "aria-label": said, title: said },
    h(
      "span",
      { class: "track" },
      known && h("span", { class: "filled", vars: { to: `${100 * mean}%` } }),
      Number.isFinite(low) && h("span", { class: "whisker", vars: { from: `${100 * low}%`, to: `${100 * high}%` } }),
    ),
    h("span", { class: "share" }, known ? percent(mean) : "–"),
  );
}

/** Donor, receiver, mixture and what the model called it, of some pairs. */
function mixtures(data, state, run) {
  const of = run.mixtures;
  if (!of) return null;
  const { probe } = run;
  const part = OF_MIXTURES[of.part];
  const head = `${part} decided in ${percent(of.share)} of ${of.n} exchanges (epoch ${of.epoch})`;
  const picture = (source, words) => h("img", { src: source, alt: words, title: words, loading: "lazy" });
  const of_image = (image) => data.className(probe, probe.labels?.[image] ?? -1);
  const shown = (image, role) =>
    probe.labels
      ? `${role}: ${of_image(image)}, ${data.imageName(probe, image)}`
      : `${role}: ${data.imageName(probe, image)}`;
  return h(
    "div",
    { class: "mixed", data: { run: run.index } },
    h("p", {}, swatch(run.index), h("b", {}, named(run.name, 28)), `: ${head}`),
    h(
      "div",
      { class: "pairs" },
      of.pairs.map((pair) => {
        const name = data.className(probe, pair.predicted);
        const words = `${part} of the first in the second: predicted ${name}`;
        return h(
          "figure",
          { class: "exchange", title: words },
          picture(probe.pictures[pair.donor], shown(pair.donor, "donor")),
          h("span", { "aria-hidden": "true" }, "+"),
          picture(probe.pictures[pair.receiver], shown(pair.receiver, "receiver")),
          h("span", { "aria-hidden": "true" }, "→"),
          picture(pair.picture, `mixture: ${words}`),
          caption(name),
        );
      }),
      !of.pairs.length && h("p", { class: "muted" }, "No pair followed it."),
    ),
  );
}

function caption(name) {
  const element = h("figcaption", { title: name });
  tailed(element, name);
  return element;
}

function whyNot(shown) {
  const reasons = shown
    .flatMap((run) => run.unjudged)
    .filter((it) => it.rules.some((rule) => rule.endsWith("_decides")));
  const reason = reasons[0]?.reason ?? "these records hold no exchange tests";
  return `Not tested: ${reason}.`;
}
