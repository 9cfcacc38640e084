// The page's data, decoded when it is asked for. ../README.md describes every field.
import * as maths from "./maths.js";

export const MEAN = -1; // stands for an image: the mean of the maps of all images

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const out = new Uint8Array(binary.length);
  for (let i = 0; i < out.length; i++) out[i] = binary.charCodeAt(i);
  return out;
}
const floats = (text) => new Float32Array(bytes(text).buffer);
const integers = (text) => new Int32Array(bytes(text).buffer);

/** A value that is computed at its first use. */
function lazy(compute) {
  let value;
  let known = false;
  return () => (known ? value : ((known = true), (value = compute())));
}

/** The maps of one method on one layer of a run, and each image's numbers. */
export class Field {
  /** @param shown `images`: those that the mean is over, or null for all */
  constructor(raw, images, shown) {
    Object.assign(this, { method: raw.method, layer: raw.layer, grid: raw.grid, images, shown });
    this.cells = raw.grid[0] * raw.grid[1];
    this.codes = lazy(() => bytes(raw.codes));
    this.low = lazy(() => floats(raw.low));
    this.high = lazy(() => floats(raw.high));
    this.numbers = Object.fromEntries(Object.entries(raw.per_image).map(([name, text]) => [name, lazy(() => floats(text))]));
    this.shift = raw.shift && { t: lazy(() => floats(raw.shift.t)), p: raw.shift.p, critical: raw.shift.critical };
    this.means = new Map();
  }

  isValid(frame, image) {
    if (frame < 0) return false;
    return image === MEAN ? this.meanOf(frame) !== null : !Number.isNaN(this.low()[frame * this.images + image]);
  }

  /** The map's cells as 0 to 255, from its own lowest to its own highest value; null where it is not valid. */
  levels(frame, image) {
    if (image === MEAN) {
      const mean = this.meanOf(frame);
      if (!mean) return null;
      const low = Math.min(...mean);
      const high = Math.max(...mean);
      return mean.map((value) => (high > low ? ((value - low) / (high - low)) * 255 : 0));
    }
    if (!this.isValid(frame, image)) return null;
    const start = (frame * this.images + image) * this.cells;
    return this.codes().subarray(start, start + this.cells);
  }

  /** The map's values as the method gave them, after ReLU; of the mean map its density. */
  values(frame, image) {
    if (image === MEAN) return this.meanOf(frame);
    const levels = this.levels(frame, image);
    if (!levels) return null;
    const at = frame * this.images + image;
    const low = this.low()[at];
    const step = (this.high()[at] - low) / 255;
    const out = new Float32Array(levels.length);
    for (let i = 0; i < out.length; i++) out[i] = low + levels[i] * step;
    return out;
  }

  /** Shares of the focus times the number of cells: 1 is chance. */
  density(frame, image) {
    if (image === MEAN) return this.meanOf(frame);
    const values = this.values(frame, image);
    return values && maths.density(values);
  }

  meanOf(frame) {
    if (frame < 0) return null;
    if (this.over !== this.shown.images) [this.over, this.means] = [this.shown.images, new Map()];
    if (!this.means.has(frame)) {
      const images = this.over ?? Array.from({ length: this.images }, (_, image) => image);
      const valid = images.map((image) => this.density(frame, image)).filter(Boolean);
      this.means.set(frame, valid.length ? maths.mean(valid) : null);
    }
    return this.means.get(frame);
  }

  /** A number of one image, such as its "drift_ref"; undefined where it was not measured. */
  number(name, frame, image) {
    const value = image === MEAN || frame < 0 ? undefined : this.numbers[name]?.()[frame * this.images + image];
    return Number.isFinite(value) ? value : undefined;
  }
}

export class Run {
  constructor(raw, index, probe, shown) {
    Object.assign(this, raw, { index, probeIndex: raw.probe, probe, images: probe.ids.length });
    this.fields = raw.maps.map((it) => new Field(it, this.images, shown));
    this.framePlaces = raw.frames.map((look) => raw.places[look]);
    this.frameOf = new Map(this.framePlaces.map((place, frame) => [place, frame]));
    this.predicted = raw.predictions && lazy(() => integers(raw.predictions));
    this.sure = raw.confidences && lazy(() => floats(raw.confidences));
  }

  /** Number of the kept look at a place of the time axis; -1 where there is none. */
  frame(place) {
    return this.frameOf.get(place) ?? -1;
  }

  field(method, layer) {
    return this.fields.find((it) => it.method === method && it.layer === layer);
  }

  /** { prediction, confidence, wrong } of an image; null where nothing is known. `wrong` needs a label. */
  outcome(frame, image) {
    if (!this.predicted || frame < 0 || image === MEAN) return null;
    const prediction = this.predicted()[frame * this.images + image];
    if (prediction < 0) return null;
    const label = this.probe.labels?.[image];
    return {
      prediction,
      confidence: this.sure?.()[frame * this.images + image],
      wrong: label !== undefined && label >= 0 && label !== prediction,
    };
  }

  /** Do the maps of a method not show what decides? */
  isUntrusted(method, layer) {
    return this.untrusted.some((it) => it.method === method && it.layer === layer);
  }

  seriesOf(metric, method, layer) {
    return this.series.find((it) => it.metric === metric && (!it.method || (it.method === method && it.layer === layer)));
  }
}

export class Dataset {
  constructor(raw) {
    if (raw?.format !== 1) throw new Error(`This viewer reads data of format 1, not ${raw?.format}.`);
    Object.assign(this, raw);
    this.shown = { images: null }; // those that pass the filter, which the mean map is over
    this.runs = raw.runs.map((run, index) => new Run(run, index, raw.probes[run.probe], this.shown));
    const pairs = this.runs.flatMap((run) => run.fields.map(({ method, layer }) => [method, layer]));
    this.methods = [...new Set(pairs.map(([method]) => method))];
    this.layers = (method) => [...new Set(pairs.filter(([it]) => it === method).map(([, layer]) => layer))];
    const tables = Object.entries(raw.colormaps).map(([name, text]) => [name, lazy(() => bytes(text))]);
    this.colormaps = Object.fromEntries(tables);
  }

  className(probe, index) {
    return probe.class_names?.[index] ?? `class ${index}`;
  }

  imageName(probe, image) {
    if (image === MEAN) return `mean of ${this.shown.images?.length ?? probe.ids.length} images`;
    const id = probe.ids[image];
    return /^\d+$/.test(id) ? `#${id}` : id;
  }
}
