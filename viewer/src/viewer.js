// Starts the page: finds its data, in the page itself or at an address, and puts the parts together.
import { annotator } from "./annotate.js";
import { controls } from "./controls.js";
import { curves } from "./curves.js";
import { Dataset, MEAN } from "./data.js";
import { detail } from "./detail.js";
import { h, named } from "./dom.js";
import { grid } from "./grid.js";
import { follows } from "./follows.js";
import { FILTERS, SORTS } from "./order.js";
import { printed } from "./print.js";
import { sharing } from "./share.js";
import { State } from "./state.js";
import { summary } from "./summary.js";
import { trails } from "./trails.js";
import { SORT_OF, verdicts } from "./verdict.js";
import "./viewer.css";
import { wall } from "./wall.js";

const MOST = 10; // runs side by side at first; `data.notes` says so
const root = document.getElementById("cam-viewer");
const source = document.getElementById("cam-data");
let parts = [];
let state = null;
let text = null; // of the data that is shown

/** Show data, keeping what the user has chosen; a slider at the last place stays at the last. */
function show(raw) {
  if (!raw.runs?.length && raw.probes?.length) return annotateOnly(raw);
  const data = new Dataset(raw);
  const last = data.places.at(-1);
  const again = state !== null;
  const following = !state || state.place === state.known.at(-1);
  for (const part of parts) part.stop?.();
  const method = data.methods.at(-1) ?? "";
  const fresh = new State(
    {
      place: last,
      at: last,
      probe: 0,
      method,
      layer: data.layers(method).at(-1) ?? "",
      colormap: "inferno",
      scale: "map",
      opacity: 0.6,
      cells: false,
      outlines: true,
      show: "maps",
      sort: firstSort(data),
      filter: "all",
      class: "",
      group: "",
      lines: data.runs.length > 1 ? "mean" : "all",
      beside: "",
      detail: null,
      original: false,
      search: "",
      section: "",
      hidden: new Set(data.runs.slice(MOST).map((run) => run.index)),
    },
    state,
  );
  if (state && following) Object.assign(fresh, { place: last, at: last });
  mend(fresh, data);
  fresh.known = data.places;
  state = fresh;
  const scroll = scrollY;
  const opened = new Set([...root.querySelectorAll("details[open] > summary")].map((it) => it.textContent));
  const image = detail(data, state);
  const bar = controls(data, state);
  const pictures = grid(data, state, (it) => state.set({ detail: it }));
  const charts = data.runs.length ? curves(data, state) : null;
  const crops = wall(data, state, (it) => state.set({ detail: it }));
  const decides = follows(data, state);
  const ways = trails(data, state, () => marking.open());
  const values = summary(data, state);
  const probe = data.probes[state.probe];
  const marking = annotator(probe, (it) => imageTitle(data, probe, it));
  const paper = printed(data, state);
  parts = [bar, pictures, charts, crops, decides, ways, paper];
  root.replaceChildren(
    header(data, state, () => marking.open()),
    bar.element,
    h(
      "main",
      {},
      h(
        "section",
        { class: "first", "aria-label": "Verdict" },
        verdicts(data, state),
        h("div", { class: data.runs.length > 2 ? "pair-of wide" : "pair-of" }, crops.element, decides.element),
      ),
      h("div", { class: "beside" }, h("section", {}, ways.element), values.element),
      charts.element,
      pictures.element,
      paper.element,
    ),
    h("footer", {}, footer(data)),
    image.element,
    marking.element,
  );
  if (!again) return void toSection(state.section);
  for (const it of root.querySelectorAll("details > summary")) it.parentElement.open = opened.has(it.textContent);
  queueMicrotask(() => scrollTo(0, scroll));
}

/** Class and name of an image. */
function imageTitle(data, probe, image) {
  const label = probe.labels ? `${data.className(probe, probe.labels[image])} · ` : "";
  return `${label}${data.imageName(probe, image)}`;
}

/** A page for drawing boxes alone: data without runs. */
function annotateOnly(raw) {
  const data = new Dataset(raw);
  const [probe] = data.probes;
  const marking = annotator(probe, (it) => imageTitle(data, probe, it));
  root.replaceChildren(
    h("header", { class: "top" }, h("h1", {}, raw.title)),
    h(
      "p",
      {},
      h("button", { type: "button", class: "tool", onclick: marking.open }, "Draw boxes"),
      ` on ${probe.n} images.`,
    ),
    marking.element,
  );
  marking.open();
}

/** An address may say which part of the page is meant: it stays in sight while others grow, until a hand moves the page. */
function toSection(section) {
  const known = section && [...root.querySelectorAll("main section")].find((it) => it.classList[0] === section);
  if (!known || section === "first") return;
  const growing = new ResizeObserver(() => known.scrollIntoView({ block: "start" }));
  growing.observe(root.querySelector("main"));
  for (const hand of ["wheel", "pointerdown", "touchstart", "keydown"])
    addEventListener(hand, () => growing.disconnect(), { once: true, capture: true });
}

/** The images that the first alert is about come first. */
function firstSort(data) {
  const raised = data.runs.flatMap((run) => run.alerts).map((alert) => SORT_OF[alert.rule]);
  const has = (name) => data.runs.some((run) => run.fields.some((field) => name in field.numbers));
  const needs = {
    target: "on_target_enrichment",
    nuisance: "nuisance_enrichment",
    drift: "drift_ref",
    entropy: "entropy",
  };
  return raised.find((sort) => sort && has(needs[sort])) ?? "drift";
}

/** Choices from an address that this data does not have. */
function mend(state, data) {
  const defaults = state.defaults;
  const among = (key, known) => known.includes(state[key]) || (state[key] = defaults[key]);
  among("place", data.places);
  among("at", data.places);
  among(
    "probe",
    data.probes.map((_, index) => index),
  );
  among("method", data.methods);
  if (!data.layers(state.method).includes(state.layer)) state.layer = data.layers(state.method).at(-1) ?? "";
  among("colormap", Object.keys(data.colormaps));
  among("scale", ["map", "fixed"]);
  among(
    "sort",
    SORTS.map(([key]) => key),
  );
  among(
    "filter",
    FILTERS.map(([key]) => key),
  );
  among("lines", ["mean", "worst_tenth", "worst_class", "all"]);
  among("beside", ["", ...Object.keys(data.numbers)]);
  const { ids } = data.probes[state.probe];
  among("detail", [null, MEAN, ...ids.keys()]);
  among("show", ["maps", ...data.runs.map((_, index) => `run:${index}`), ...data.places.map((it) => `epoch:${it}`)]);
  if (!(state.opacity >= 0 && state.opacity <= 1)) state.opacity = defaults.opacity;
}

function header(data, state, mark) {
  const probe = data.probes[0];
  const facts = [
    `${probe.n} probe image${probe.n === 1 ? "" : "s"} of ${probe.height}×${probe.width}`,
    `${data.places.length} ${data.axis}${data.places.length === 1 ? "" : "s"}`,
  ];
  const badge =
    data.runs.length === 1
      ? h("p", { class: "badge" }, "Probe ", h("code", {}, probe.fingerprint))
      : data.same_probe
        ? h("p", { class: "badge good" }, h("b", {}, "✓ Same probe"), " in all runs ", h("code", {}, probe.fingerprint))
        : h("p", { class: "badge bad" }, h("b", {}, "✗ Different probes"));
  return h(
    "header",
    { class: "top" },
    h("h1", {}, data.runs.length === 1 ? named(data.runs[0].name, 120) : `Where ${data.runs.length} runs look`),
    h("p", { class: "facts" }, facts.join(" · "), badge, sharing(data, state, mark)),
    data.notes.length > 0 &&
      h(
        "details",
        { class: "notes", open: data.notes.length <= 4 },
        h("summary", {}, `${data.notes.length} note${data.notes.length === 1 ? "" : "s"}: what differs or is left out`),
        h(
          "ul",
          {},
          data.notes.map((note) => h("li", {}, note)),
        ),
      ),
  );
}

function footer(data) {
  const runs = data.runs.length === 1 ? "this run" : "these runs";
  return `Made by cam-callbacks from the records of ${runs}. Keys: ← → step through the ${data.axis}s, space plays.`;
}

function fail(error) {
  console.error(error);
  root.replaceChildren(h("p", { class: "failed", role: "alert" }, `This page cannot be shown: ${error.message}`));
}

async function load() {
  const address = source.dataset.src;
  if (!address) return show(JSON.parse(source.textContent));
  const answer = await fetch(address, { headers: { Accept: "application/json" } });
  const found = await answer.text();
  if (!answer.ok) throw new Error(`${answer.status} ${found.slice(0, 300)}`);
  if (found !== text) show(JSON.parse(found));
  text = found;
}

async function start() {
  try {
    await load();
  } catch (error) {
    fail(error);
  }
  const seconds = Number(source.dataset.refresh);
  // A server that does not answer for a while is asked again; what is shown stays.
  if (seconds > 0)
    setInterval(
      () => document.hidden || load().catch((error) => (text === null ? fail(error) : undefined)),
      seconds * 1000,
    );
}

start();
