// The probe images: the same image of all runs side by side, image after image.
import { pinText, shows } from "./controls.js";
import { MEAN } from "./data.js";
import { h, named, refill, select, shorten, swatch } from "./dom.js";
import { FILTERS, order, SORTS } from "./order.js";
import { Panel } from "./panel.js";
import { afterPaint } from "./sight.js";

const TILE = 150; // pixels that a panel should have
const RESORTS = ["sort", "filter", "class", "group", "search", "at", "probe", "method", "layer", "hidden"];

export function grid(data, state, open) {
  const cards = h("div", { class: "cards" });
  const head = h("div", { class: "heads", "aria-hidden": "true" });
  const chosen = h("div", { class: "choices" });
  const none = h("p", { class: "muted" });
  const notice = h("p", { class: "muted" });
  const visible = new Set();
  const panels = new Map(); // card → its panels
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) visible.add(target);
        else visible.delete(target);
        if (isIntersecting) draw(target);
      }
    },
    { rootMargin: "60px 0px" },
  );

  const runs = () => data.runs.filter((run) => run.probeIndex === state.probe && !state.hidden.has(run.index));
  const draw = (card) => drawAll([card]);
  /** Sizes are read first: a panel that has changed would have to be laid out before the next can be measured. */
  function drawAll(shown) {
    const own = [...shown].flatMap((card) => panels.get(card) ?? []);
    const width = own[0]?.canvas.clientWidth;
    for (const panel of own) panel.draw(width);
  }

  function fill() {
    const shown = runs();
    const probe = data.probes[state.probe];
    const images = order(data, state, shown);
    data.shown.images = images.length === probe.ids.length ? null : images;
    watcher.disconnect();
    visible.clear();
    panels.clear();
    notice.textContent = probe.pictures ? "" : "These records hold no pictures: the maps are drawn on grey.";
    notice.hidden = Boolean(probe.pictures);
    none.textContent = images.length ? "" : "No image passes the filter.";
    none.hidden = images.length > 0;
    const all = shown.length && images.length > 1 ? [MEAN, ...images] : images;
    cards.replaceChildren(...all.map((image) => card(shown, image)));
    layout();
    for (const it of cards.children) watcher.observe(it);
    refill(chosen, choices(data, state, images.length));
  }

  function card(shown, image) {
    const probe = data.probes[state.probe];
    const label = probe.labels && image !== MEAN ? data.className(probe, probe.labels[image]) : null;
    const title = h(
      "div",
      { class: "about" },
      label && [h("b", {}, h("bdi", { title: label }, shorten(label, 24))), " "],
      h("span", { class: image === MEAN ? "" : "muted" }, named(data.imageName(probe, image), 26)),
      probe.groups &&
        image !== MEAN &&
        h("span", { class: "tag", title: probe.groups[image] }, shorten(probe.groups[image], 14)),
    );
    const own = shown.map((run) => new Panel(data, state, run, image, open));
    const element = h(
      "article",
      { class: "card", "aria-label": data.imageName(probe, image), data: { image } },
      title,
      h(
        "div",
        { class: "tiles" },
        own.map((panel) => panel.element),
      ),
    );
    panels.set(element, own);
    return element;
  }

  /** As many images beside each other as there is room for; the runs' names above each. */
  function layout() {
    const shown = runs();
    const width = cards.clientWidth || 600;
    const across = Math.max(
      1,
      Math.min(cards.children.length, Math.round((width + 18) / (shown.length * (TILE + 4) + 18))),
    );
    section.style.setProperty("--across", across);
    section.style.setProperty("--runs", Math.max(1, shown.length));
    section.classList.toggle("tight", width / (across * shown.length) < 100);
    const names = () =>
      h(
        "div",
        { class: "tiles" },
        shown.map((run) => h("span", { class: "runname" }, swatch(run.index), named(run.name, 28))),
      );
    head.replaceChildren(...(shown.length > 1 ? Array.from({ length: across }, names) : []));
  }

  const section = h(
    "section",
    { class: "images", "aria-label": "Images" },
    h("h2", {}, "Images"),
    chosen,
    notice,
    none,
    head,
    cards,
  );
  state.listen((keys) => {
    if (RESORTS.some((key) => keys.has(key))) fill();
    else if (!keys.has("detail") || keys.size > 1) drawAll(visible);
    if (["show", "colormap", "scale"].some((key) => keys.has(key)))
      refill(chosen, choices(data, state, cards.children.length));
    else if (keys.has("place")) chosen.querySelector(".pin")?.replaceChildren(pinText(data, state));
    if (keys.has("place") && state.place !== state.at) chosen.querySelector(".again")?.removeAttribute("hidden");
  });
  let known = 0;
  const resized = new ResizeObserver(() => {
    if (known === cards.clientWidth) return;
    known = cards.clientWidth;
    layout();
    drawAll(visible);
  });
  afterPaint(() => {
    fill();
    resized.observe(cards);
  });
  return { element: section, redraw: () => drawAll(visible), stop: () => (watcher.disconnect(), resized.disconnect()) };
}

/** Filters by id, class and group while it is typed. */
function search(state) {
  const box = h("input", {
    type: "search",
    class: "search",
    placeholder: "search id, class",
    "aria-label": "Search",
    oninput: () => state.set({ search: box.value }),
  });
  box.value = state.search;
  return box;
}

function choices(data, state, count) {
  const probe = data.probes[state.probe];
  const runs = data.runs.filter((run) => run.probeIndex === state.probe);
  const has = (name) => runs.some((run) => run.fields.some((field) => name in field.numbers));
  const NEEDS = {
    drift: has("drift_ref"),
    target: has("on_target_enrichment"),
    nuisance: has("nuisance_enrichment"),
    entropy: has("entropy"),
    runs: runs.length > 1,
    probe: true,
  };
  const filters = FILTERS.filter(
    ([key]) => key === "all" || (runs.some((run) => run.predicted) && (key !== "differ" || runs.length > 1)),
  );
  const classes =
    probe.labels &&
    [...new Set(probe.labels)].sort((a, b) => a - b).map((it) => [String(it), data.className(probe, it)]);
  const groups = probe.groups && [...new Set(probe.groups)].map((it) => [it, it]);
  return [
    select(
      "Sort",
      SORTS.filter(([key]) => NEEDS[key]),
      state.sort,
      (sort) => state.set({ sort }),
    ),
    filters.length > 1 && select("Filter", filters, state.filter, (filter) => state.set({ filter })),
    classes?.length > 1 && select("Class", [["", "all"], ...classes], state.class, (it) => state.set({ class: it })),
    groups?.length > 1 && select("Group", [["", "all"], ...groups], state.group, (group) => state.set({ group })),
    search(state),
    h("span", { class: "muted count" }, `${count} of ${probe.ids.length} images, by ${data.axis} ${state.at}`),
    h(
      "button",
      {
        type: "button",
        class: "again",
        hidden: state.at === state.place,
        onclick: () => state.set({ at: state.place }),
        title: "Images stay in place while the slider moves",
      },
      `sort by the ${data.axis} shown`,
    ),
    ...shows(data, state),
  ].filter(Boolean);
}
