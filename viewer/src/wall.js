// Under the focus: what lies where the map is highest, cut out of the pictures themselves; runs side by side, a row a class.
import { h, named, swatch, tailed } from "./dom.js";
import { order } from "./order.js";
import { decodedPicture } from "./pictures.js";
import { inSight } from "./sight.js";

const SHARE = 3 / 8; // of the picture's shorter side: the side of the window
const [SMALLEST, LARGEST, GAP] = [34, 56, 2]; // pixels of the page
const ABOVE = 330; // of the window, that something else needs before the wall begins
const ROWS = 12; // more fold away
const LABEL = 92; // pixels for the classes' names, at most
const NAME = 150; // pixels for a run's name, where there is room
const FLOWS = 2; // of fewer images a class they flow as one wall
const RESORTS = ["at", "probe", "method", "layer", "hidden"];

export function wall(data, state, open) {
  const box = h("div", { class: "crops" });
  const caption = h("p", { class: "muted" });
  const more = h("button", { type: "button", class: "again", onclick: () => ((unfolded = !unfolded), anew()) });
  const element = h(
    "div",
    { class: "wall", role: "group", "aria-label": "Under the focus" },
    h("h2", {}, "Under the focus"),
    caption,
    box,
    more,
  );
  let unfolded = false;
  let strips = [];
  let known = 0;

  const runs = () => data.runs.filter((run) => run.probeIndex === state.probe && !state.hidden.has(run.index));

  let stale = true; // are the rows to be chosen anew?

  function show() {
    if (stale) fill();
    else strips.forEach((strip) => strip.draw());
  }

  function fill() {
    stale = false;
    const shown = runs();
    const probe = data.probes[state.probe];
    known = box.clientWidth;
    const room = ((box.clientWidth || 600) - LABEL - 14 * shown.length) / Math.max(1, shown.length);
    const rows = rowsOf(data, state, shown, Math.max(2, Math.floor(room / (SMALLEST + GAP))));
    const visible = unfolded ? rows : rows.slice(0, ROWS);
    const longest = Math.max(1, ...visible.map((row) => row.images.length));
    const tallest = (innerHeight - ABOVE) / Math.min(ROWS, Math.max(1, rows.length));
    const tile = Math.floor(Math.min(LARGEST, Math.max(SMALLEST, Math.min(room / longest, tallest) - GAP)));
    caption.textContent = words(data, state, probe, shown, rows);
    more.hidden = rows.length <= ROWS;
    const kind = probe.labels && rows[0]?.name != null ? "classes" : "rows";
    more.textContent = unfolded ? "fold" : `show ${rows.length - ROWS} more ${kind}`;
    strips = visible.flatMap((row) => shown.map((run) => new Strip(data, state, run, row, tile, open)));
    box.style.setProperty("--runs", Math.max(1, shown.length));
    box.style.setProperty("--strip", `${Math.max(longest * (tile + GAP), Math.min(room, NAME))}px`);
    box.replaceChildren(
      h("span", {}),
      ...shown.map((run) => h("span", { class: "runname" }, swatch(run.index), named(run.name, 28))),
      ...visible.flatMap((row, i) => [
        rowName(row.name),
        ...strips.slice(i * shown.length, (i + 1) * shown.length).map((strip) => strip.canvas),
      ]),
    );
    strips.forEach((strip) => strip.draw());
  }

  const sight = inSight(element, show);
  const anew = () => {
    stale = true;
    sight.draw();
  };
  state.listen((keys) => {
    if (RESORTS.some((key) => keys.has(key))) anew();
    else if (keys.has("place")) sight.draw();
  });
  const resized = new ResizeObserver(() => known !== box.clientWidth && anew());
  sight.draw();
  resized.observe(box);
  return { element, stop: () => (resized.disconnect(), sight.stop()) };
}

function rowName(name) {
  const element = h("span", { class: "rowname", title: name ?? undefined });
  if (name !== null) tailed(element, name);
  return element;
}

function words(data, state, probe, shown, rows) {
  if (!probe.pictures) return "These records hold no pictures, so that nothing can be cut out.";
  const row = rows[0]?.name == null ? "most telling first" : probe.labels ? "a row a class" : "a row a group";
  const remark = shown.find((run) => run.isUntrusted(state.method, state.layer));
  const warning = remark ? ` In ${remark.name} these maps do not show what decides.` : "";
  return `The pictures themselves where ${state.method} is highest, ${row}.${warning}`;
}

/** { name, images } of each row, the most telling first; without classes or groups one wall of rows. */
function rowsOf(data, state, shown, columns) {
  const probe = data.probes[state.probe];
  const sort = shown.some((run) => run.field(state.method, state.layer)?.numbers.nuisance_enrichment)
    ? "nuisance"
    : shown.some((run) => run.field(state.method, state.layer)?.numbers.on_target_enrichment)
      ? "target"
      : shown.length > 1
        ? "runs"
        : "drift";
  const plain = { ...choicesOf(state), sort, filter: "all", class: "", group: "", search: "" };
  const images = order(data, plain, shown);
  const tags = probe.labels ?? probe.groups;
  const classes = new Map();
  for (const image of images) {
    const tag = tags?.[image];
    if (!classes.has(tag)) classes.set(tag, []);
    classes.get(tag).push(image);
  }
  if (classes.size < 2 || images.length < FLOWS * classes.size) {
    const count = Math.ceil(images.length / columns);
    return Array.from({ length: count }, (_, i) => ({
      name: null,
      images: images.slice(i * columns, (i + 1) * columns),
    }));
  }
  // The images of a class are in order already: the class whose typical image comes first is the most telling.
  const rank = new Map(images.map((image, i) => [image, i]));
  const typical = (row) => rank.get(row[Math.floor(row.length / 2)]);
  return [...classes]
    .sort(([, a], [, b]) => typical(a) - typical(b))
    .map(([tag, row]) => ({
      name: probe.labels ? data.className(probe, tag) : tag,
      images: row.slice(0, columns),
    }));
}

const choicesOf = (state) => ({ method: state.method, layer: state.layer, at: state.at, probe: state.probe });

/** One run's crops of one row. */
class Strip {
  constructor(data, state, run, row, tile, open) {
    Object.assign(this, { data, state, run, row, tile });
    const scale = (this.scale = Math.min(2, devicePixelRatio || 1));
    const width = row.images.length * (tile + GAP) - GAP;
    this.canvas = h("canvas", {
      class: "strip",
      role: "img",
      width: Math.round(width * scale),
      height: Math.round(tile * scale),
      "aria-label": `${run.name}, ${row.name ?? "images"}: what lies under the focus`,
      data: { run: run.index },
      onclick: (event) => this.#under(event) !== undefined && open(this.#under(event)),
      onpointermove: (event) => (this.canvas.title = this.#title(this.#under(event))),
    });
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${tile}px`;
    this.context = this.canvas.getContext("2d");
  }

  draw() {
    const { canvas, context, run, state, row, scale, tile } = this;
    const field = run.field(state.method, state.layer);
    const frame = run.frame(state.place);
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (const [i, image] of row.images.entries()) {
      const [x, side] = [i * (tile + GAP) * scale, tile * scale];
      const picture = field && frame >= 0 ? decodedPicture(run.probe, image) : null;
      const levels = picture && field.levels(frame, image);
      if (picture instanceof Promise) void picture.then(() => this.drawSoon());
      else if (levels) {
        const [left, top, size] = cropped(levels, field.grid, picture.naturalWidth, picture.naturalHeight);
        context.drawImage(picture, left, top, size, size, x, 0, side, side);
      } else blank(context, x, side);
    }
  }

  /** Once for all pictures that are decoded at about the same time. */
  drawSoon() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.draw(), 0);
  }

  #under(event) {
    return this.row.images[Math.floor(event.offsetX / (this.tile + GAP))];
  }

  #title(image) {
    if (image === undefined) return "";
    const { data, run, state } = this;
    const outcome = run.outcome(run.frame(state.place), image);
    const predicted = outcome ? `, predicted ${data.className(run.probe, outcome.prediction)}` : "";
    return `${data.imageName(run.probe, image)}${predicted}: click to open`;
  }
}

/** Left, top and side of the window around a map's peak, in pixels of the picture, inside which it stays. */
export function cropped(levels, [rows, columns], width, height) {
  const side = Math.max(1, Math.round(SHARE * Math.min(width, height)));
  const [y, x] = peakOf(levels, rows, columns);
  const within = (centre, length) => Math.min(Math.max(Math.round(centre * length - side / 2), 0), length - side);
  return [within(x, width), within(y, height), side];
}

/** Where a map is highest, between 0 and 1: the centre of mass of the cells around its highest one. */
function peakOf(levels, rows, columns) {
  let best = 0;
  for (let i = 1; i < levels.length; i++) if (levels[i] > levels[best]) best = i;
  const [row, column] = [Math.floor(best / columns), best % columns];
  let [sum, down, right] = [0, 0, 0];
  for (let y = Math.max(0, row - 1); y <= Math.min(rows - 1, row + 1); y++)
    for (let x = Math.max(0, column - 1); x <= Math.min(columns - 1, column + 1); x++) {
      const weight = levels[y * columns + x];
      sum += weight;
      down += weight * (y + 0.5);
      right += weight * (x + 0.5);
    }
  return sum > 0 ? [down / sum / rows, right / sum / columns] : [(row + 0.5) / rows, (column + 0.5) / columns];
}

function blank(context, x, side) {
  context.strokeStyle = "rgba(128,128,128,.6)";
  context.strokeRect(x + 0.5, 0.5, side - 1, side - 1);
  context.beginPath();
  context.moveTo(x, side);
  context.lineTo(x + side, 0);
  context.stroke();
}
