// The bar that stays in sight: time, what is shown, and how.
import { h, isEditing, refill, select } from "./dom.js";
import { times } from "./format.js";
import { divergingBytes } from "./paint.js";
import { fixedLimit } from "./view.js";

const STEP_MS = 450; // between two places while playing

export function controls(data, state) {
  const { places } = data;
  const slider = h("input", {
    type: "range",
    class: "slider",
    min: "0",
    max: String(places.length - 1),
    step: "1",
    "aria-label": `${data.axis}s`,
    oninput: () => go(Number(slider.value)),
  });
  const where = h("output", { class: "where", "aria-live": "polite" });
  const play = h("button", { type: "button", class: "icon play", onclick: () => (timer ? stop() : start()) });
  let timer = null;

  const index = () => Math.max(0, places.indexOf(state.place));
  const go = (to) => state.set({ place: places[Math.min(Math.max(to, 0), places.length - 1)] });
  const start = () => {
    if (index() === places.length - 1) go(0);
    timer = setInterval(() => (index() < places.length - 1 ? go(index() + 1) : stop()), STEP_MS);
    write();
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    write();
  };
  const step = (by) => {
    stop();
    go(index() + by);
  };
  function write() {
    slider.value = String(index());
    slider.setAttribute("aria-valuetext", `${data.axis} ${state.place}`);
    where.textContent = `${data.axis} ${state.place} of ${places.at(-1)}`;
    play.textContent = timer ? "❚❚" : "▶";
    play.setAttribute("aria-label", timer ? "pause" : "play");
  }

  const onKey = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || isEditing(event.target)) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && !event.target.closest?.(".scroll")) step(by);
    else if (event.key === " " && !event.target.closest?.("button, a, summary, .scroll")) timer ? stop() : start();
    else return;
    event.preventDefault();
  };

  const choices = h("div", { class: "choices" });
  state.listen((keys) => {
    write();
    if (["method", "layer", "show", "probe", "colormap", "scale"].some((key) => keys.has(key)))
      refill(choices, fields(data, state));
    else if (keys.has("place")) choices.querySelector(".pin")?.replaceChildren(pinText(data, state));
  });
  choices.append(...fields(data, state));
  write();
  const narrow = innerWidth < 900;
  const bar = h(
    "div",
    { class: "bar", role: "region", "aria-label": "What is shown" },
    h(
      "div",
      { class: "time" },
      play,
      h("button", { type: "button", class: "icon", "aria-label": `${data.axis} before`, onclick: () => step(-1) }, "‹"),
      slider,
      h("button", { type: "button", class: "icon", "aria-label": `next ${data.axis}`, onclick: () => step(1) }, "›"),
      where,
    ),
    h(
      "nav",
      { class: "jumps", "aria-label": "Parts of the page" },
      ["Summary", "Curves", "Images"].map((part) =>
        h(
          "button",
          {
            type: "button",
            class: "jump",
            onclick: () => document.querySelector(`.${part.toLowerCase()}`).scrollIntoView({ block: "start" }),
          },
          part,
        ),
      ),
    ),
    h("details", { class: "display", open: !narrow }, h("summary", {}, "Display"), choices),
  );
  document.addEventListener("keydown", onKey);
  const resized = new ResizeObserver(() =>
    document.documentElement.style.setProperty("--bar", `${bar.offsetHeight}px`),
  );
  resized.observe(bar);
  return { element: bar, stop: () => (stop(), resized.disconnect(), document.removeEventListener("keydown", onKey)) };
}

function fields(data, state) {
  const runs = data.runs.filter((run) => run.probeIndex === state.probe);
  const layers = data.layers(state.method);
  const shows = [
    ["maps", "maps"],
    ...(runs.length > 1 ? runs.map((run) => [`run:${run.index}`, `difference to ${run.name}`]) : []),
  ];
  if (data.places.length > 1) {
    const pinned = state.show.startsWith("epoch:") ? state.show : `epoch:${data.places[0]}`;
    shows.push([pinned, `difference to ${data.axis} ${pinned.slice(6)}`]);
  }
  const probes = data.probes.map((probe, i) => [String(i), `${probe.ids.length} images, ${probe.fingerprint}`]);
  return [
    data.probes.length > 1 &&
      select("Probe", probes, String(state.probe), (it) =>
        state.set({ probe: Number(it), show: "maps", class: "", group: "" }),
      ),
    select(
      "Method",
      data.methods.map((it) => [it, it]),
      state.method,
      (method) =>
        state.set({ method, layer: data.layers(method).includes(state.layer) ? state.layer : data.layers(method)[0] }),
    ),
    layers.length > 1 &&
      select(
        "Layer",
        layers.map((it) => [it, it]),
        state.layer,
        (layer) => state.set({ layer }),
      ),
    shows.length > 1 &&
      select(
        "Show",
        shows,
        state.show,
        (show) => state.set({ show }),
        "Maps, or the maps minus those of another run or epoch",
      ),
    state.show.startsWith("epoch:") &&
      h(
        "button",
        { type: "button", class: "pin", onclick: () => state.set({ show: `epoch:${state.place}` }) },
        pinText(data, state),
      ),
    select(
      "Colours",
      Object.keys(data.colormaps).map((it) => [it, it]),
      state.colormap,
      (colormap) => state.set({ colormap }),
    ),
    select(
      "Scale",
      [
        ["map", "of each map"],
        ["fixed", "fixed over epochs"],
      ],
      state.scale,
      (scale) => state.set({ scale }),
      "Of each map: from its lowest to its highest cell. " +
        "Fixed: the same colour is the same share of the focus, at every epoch, in every run",
    ),
    h(
      "label",
      { class: "field" },
      h("span", {}, "Opacity"),
      h("input", {
        type: "range",
        min: "0",
        max: "1",
        step: "0.05",
        value: String(state.opacity),
        "aria-label": "Opacity",
        oninput: (event) => state.set({ opacity: Number(event.target.value) }),
      }),
    ),
    check("Cells", state.cells, (cells) => state.set({ cells }), "The map's own cells, without smoothing"),
    check(
      "Outlines",
      state.outlines,
      (outlines) => state.set({ outlines }),
      "Solid: where it should look. Dashed: what it is suspected to look at",
    ),
    legend(data, state),
  ].filter(Boolean);
}

const pinText = (data, state) => `subtract ${data.axis} ${state.place}`;

const check = (text, checked, choose, hint) =>
  h(
    "label",
    { class: "field check", title: hint },
    h("input", { type: "checkbox", checked, onchange: (event) => choose(event.target.checked) }),
    h("span", {}, text),
  );

/** The colours from end to end, and what the ends stand for. */
function legend(data, state) {
  const differs = state.show !== "maps";
  const rgb = differs ? divergingBytes() : data.colormaps[state.colormap]();
  const stops = Array.from({ length: 17 }, (_, i) => Math.round((i / 16) * 255)).map(
    (i) => `rgb(${rgb[3 * i]},${rgb[3 * i + 1]},${rgb[3 * i + 2]})`,
  );
  const limit = state.scale === "fixed" && fixedLimit(data, state.probe, state.method, state.layer);
  const [low, high] = differs
    ? limit
      ? [`−${times(limit / 2)}`, `+${times(limit / 2)} chance`]
      : ["less focus", "more"]
    : limit
      ? ["0", `${times(limit)} chance`]
      : ["lowest cell", "highest"];
  const ramp = h("span", { class: "ramp" });
  ramp.style.backgroundImage = `linear-gradient(to right, ${stops.join(",")})`;
  return h("span", { class: "legend", role: "img", "aria-label": `Colours from ${low} to ${high}` }, low, ramp, high);
}
