// What a panel shows: which map of which run, on which scale, in which colours, and that in words.
import { MEAN } from "./data.js";
import { percent, shown, times } from "./format.js";
import { divergence, peak } from "./maths.js";
import { divergingBytes, table } from "./paint.js";

/** What is drawn for an image of a run under the user's choices; `gap` says in words why there is nothing. */
export function view(data, state, run, image, method = state.method, layer = state.layer) {
  const field = run.field(method, layer);
  if (!field) return { gap: `no ${method} on ${layer}` };
  const frame = run.frame(state.place);
  if (frame < 0) return { gap: `no look at ${data.axis} ${state.place}` };
  const view = { run, field, frame, image, grid: field.grid };
  const base = baseOf(data, state, run, method, layer);
  if (base) return { ...view, ...difference(data, state, view, base) };
  const levels = field.levels(frame, image);
  if (!levels) return { ...view, invalid: true };
  const colours = table(data.colormaps[state.colormap]);
  if (state.scale === "map") return { ...view, levels, colours };
  const limit = fixedLimit(data, run.probeIndex, method, layer);
  const scaled = field.density(frame, image).map((value) => Math.min(255, (value / limit) * 255));
  return { ...view, levels: scaled, colours };
}

/** What maps are subtracted from this run's: { run, place }; null where the maps themselves are shown. */
function baseOf(data, state, run, method, layer) {
  const [kind, text] = state.show.split(":");
  if (kind === "epoch") return { run, place: Number(text), field: run.field(method, layer) };
  const other = kind === "run" ? data.runs[Number(text)] : undefined;
  return other && other !== run && other.probe === run.probe
    ? { run: other, place: state.place, field: other.field(method, layer) }
    : null;
}

function difference(data, state, { field, frame, image }, base) {
  const other = base.run.frame(base.place);
  if (!base.field || other < 0) return { gap: `nothing to subtract: no look at ${data.axis} ${base.place}` };
  if (String(base.field.grid) !== String(field.grid)) {
    return { gap: `grid ${field.grid.join("×")}, not ${base.field.grid.join("×")}: cannot be subtracted` };
  }
  const [now, before] = [field.density(frame, image), base.field.density(other, image)];
  if (!now || !before) return { invalid: true, grey: true };
  const change = now.map((value, cell) => value - before[cell]);
  let limit = fixedLimit(data, base.run.probeIndex, field.method, field.layer) / 2;
  if (state.scale === "map") limit = Math.max(1e-9, ...change.map(Math.abs));
  return {
    change,
    limit,
    grey: true,
    divergence: divergence([now, before]),
    levels: change.map((value) => Math.min(255, Math.max(0, 127.5 + (value / limit) * 127.5))),
    colours: table(divergingBytes),
  };
}

/** The density that stands at the end of a fixed scale: what 99 of 100 maps of any epoch do not exceed. */
const limits = new WeakMap();
export function fixedLimit(data, probe, method, layer) {
  if (!limits.has(data)) limits.set(data, new Map());
  const known = limits.get(data);
  const key = JSON.stringify([probe, method, layer]);
  if (!known.has(key)) {
    const peaks = [];
    for (const run of data.runs.filter((it) => it.probeIndex === probe)) {
      const field = run.field(method, layer);
      for (let frame = 0; field && frame < run.framePlaces.length; frame++)
        for (let image = 0; image < field.images; image++) {
          const values = field.density(frame, image);
          if (values) peaks.push(values[peak(values)]);
        }
    }
    peaks.sort((a, b) => a - b);
    known.set(key, peaks[Math.floor(0.99 * (peaks.length - 1))] ?? 1);
  }
  return known.get(key);
}

/** A line on prediction and confidence; null where the model is no classifier. */
export function outcomeWords(data, run, frame, image) {
  const outcome = run.outcome(frame, image);
  if (!outcome) return null;
  const name = data.className(run.probe, outcome.prediction);
  return { name, sure: percent(outcome.confidence), wrong: outcome.wrong };
}

/** The numbers of one image at one look, in a few characters. */
export function numberWords({ field, frame, image, divergence: jsd }) {
  if (jsd !== undefined) return `JSD ${shown(jsd)}`;
  const target = field.number("on_target_enrichment", frame, image);
  const nuisance = field.number("nuisance_enrichment", frame, image);
  const drift = field.number("drift_ref", frame, image);
  const words = [target === undefined ? "" : `target ${times(target)}`];
  if (nuisance !== undefined) words.push(`suspect ${times(nuisance)}`);
  else if (drift !== undefined) words.push(`drift ${drift.toFixed(2)}`);
  return words.filter(Boolean).join(" · ");
}

/** The panel for those who do not see it. */
export function words(data, state, it, run, image, method = state.method) {
  const what = `${method} of ${run.name}, ${data.imageName(run.probe, image)}, ${data.axis} ${state.place}`;
  if (it.gap) return `${what}: ${it.gap}.`;
  if (it.invalid) return `${what}: the map says nothing, no focus.`;
  const values = it.change ?? it.field.density(it.frame, image);
  const cell = peak(values);
  const where = `row ${Math.floor(cell / it.grid[1]) + 1}, column ${(cell % it.grid[1]) + 1} of ${it.grid.join(" by ")}`;
  const outcome = outcomeWords(data, run, it.frame, image);
  return [
    it.change
      ? `${what}, difference: most gained at ${where}, ${times(values[cell])} chance.`
      : `${what}: most focus at ${where}, ${times(values[cell])} chance.`,
    outcome ? `Predicted ${outcome.name}, ${outcome.sure}${outcome.wrong ? ", wrong" : ""}.` : "",
    numberWords(it),
  ].join(" ");
}

/** What a cell holds, for the tooltip. */
export function cellWords(it, cell) {
  const [h, w] = it.grid;
  const place = `cell ${Math.floor(cell / w) + 1}, ${(cell % w) + 1} of ${h}×${w}`;
  if (it.change) return `${place}: ${it.change[cell] >= 0 ? "+" : "−"}${times(Math.abs(it.change[cell]))} chance`;
  const density = it.field.density(it.frame, it.image)[cell];
  const value = it.image === MEAN ? "" : `value ${shown(it.field.values(it.frame, it.image)[cell])}, `;
  return `${place}: ${value}${percent(density / (h * w))} of the focus (${times(density)} chance)`;
}
