// Which images are shown, and in which order.
import { divergence } from "./maths.js";

export const SORTS = [
  ["drift", "largest drift first"],
  ["target", "least on target first"],
  ["nuisance", "most on nuisance first"],
  ["entropy", "most diffuse first"],
  ["runs", "runs disagree most first"],
  ["probe", "as in the probe"],
];
export const FILTERS = [
  ["all", "all images"],
  ["wrong", "wrong predictions"],
  ["flipped", "flipped since the reference"],
  ["changed", "flipped since the look before"],
  ["differ", "predictions differ between runs"],
];

const NUMBERS = {
  drift: ["drift_ref", 1],
  target: ["on_target_enrichment", -1],
  nuisance: ["nuisance_enrichment", 1],
  entropy: ["entropy", 1],
};

/** Numbers of the images to show, in order; what counts is how they are at the place `state.at`, in the worst of the runs. */
export function order(data, state, runs) {
  const probe = data.probes[state.probe];
  const images = probe.ids
    .map((_, image) => image)
    .filter((image) => isIn(data, state, probe, image) && passes(data, state, runs, image));
  if (state.sort === "probe") return images;
  const keys = new Map(images.map((image) => [image, badness(state, runs, image)]));
  return images.sort((a, b) => keys.get(b) - keys.get(a) || a - b);
}

function isIn(data, state, probe, image) {
  const inClass = state.class === "" || probe.labels?.[image] === Number(state.class);
  if (state.search && !found(data, probe, image, state.search)) return false;
  return inClass && (state.group === "" || probe.groups?.[image] === state.group);
}

/** Is a text in the image's id, or in the name of its class or group? */
function found(data, probe, image, text) {
  const label = probe.labels ? data.className(probe, probe.labels[image]) : "";
  const words = [probe.ids[image], label, probe.groups?.[image] ?? ""].join("\n").toLowerCase();
  return words.includes(text.trim().toLowerCase());
}

function passes(data, state, runs, image) {
  if (state.filter === "all") return true;
  const outcomes = runs.map((run) => run.outcome(run.frame(state.at), image));
  if (state.filter === "wrong") return outcomes.some((it) => it?.wrong);
  if (state.filter === "differ") return new Set(outcomes.filter(Boolean).map((it) => it.prediction)).size > 1;
  return runs.some((run, i) => {
    const before = run.outcome(
      state.filter === "changed" ? run.frame(state.at) - 1 : referenceFrame(state, run),
      image,
    );
    return before && outcomes[i] && before.prediction !== outcomes[i].prediction;
  });
}

/** The kept look at which, or last before which, the reference was set. */
function referenceFrame(state, run) {
  const look = run.reference.find((it) => it.method === state.method && it.layer === state.layer)?.look;
  return run.frames.findLastIndex((index) => run.looks[index] <= look);
}

function badness(state, runs, image) {
  if (state.sort === "runs") {
    const maps = runs
      .map((run) => run.field(state.method, state.layer)?.density(run.frame(state.at), image))
      .filter(Boolean);
    const alike = maps.filter((it) => it.length === maps[0].length);
    return alike.length > 1 ? divergence(alike) : -Infinity;
  }
  const [name, sign] = NUMBERS[state.sort];
  const values = runs.map((run) => run.field(state.method, state.layer)?.number(name, run.frame(state.at), image));
  return Math.max(-Infinity, ...values.filter((value) => value !== undefined).map((value) => sign * value));
}
