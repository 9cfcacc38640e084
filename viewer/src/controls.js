// The bar that stays in sight: time, what is shown, and how.
import { h, isEditing, refill, select } from "./dom.js";
import { times } from "./format.js";
import { divergingBytes } from "./paint.js";
import { fixedLimit } from "./view.js";

const STEP_MS = 450; // between two places while playing
const PARTS = { Verdict: ".first", Curves: ".curves", Images: ".images", Numbers: ".summary" };

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

  const original = (on) => state.set({ original: on });
  const onKey = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || isEditing(event.target)) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "o" || event.key === "O") original(true);
    else if (by && !event.target.closest?.(".scroll")) step(by);
    else if (event.key === " " && !event.target.closest?.("button, a, summary, .scroll")) timer ? stop() : start();
    else return;
    event.preventDefault();
  };
  const onKeyUp = (event) => (event.key === "o" || event.key === "O") && original(false);
  const away = () => original(false);

  const chosen = h("div", { class: "choices" });
  const display = h("div", { class: "choices popover" });
  const gear = h(
    "details",
    { class: "gear" },
    h("summary", { title: "Colours, scale, cells, opacity", "aria-label": "Display" }, "⚙"),
    display,
  );
  const outside = (event) => gear.open && !gear.contains(event.target) && (gear.open = false);
  state.listen((keys) => {
    write();
    if (["method", "layer", "show", "probe", "colormap", "scale"].some((key) => keys.has(key))) {
      refill(chosen, fields(data, state));
      refill(display, looks(data, state));
    }
  });
  chosen.append(...fields(data, state));
  display.append(...looks(data, state));
  write();
  const bar = h(
    "div",
    { class: "bar", role: "region", "aria-label": "What is shown" },
    h(
      "div",
      { class: "time" },
      play,
      h("button", { type: "button", class: "icon", "aria-label": `${data.axis} before`, onclick: () => step(-1) }, "‹"),
      h("span", { class: "rail" }, slider, onsets(data)),
      h("button", { type: "button", class: "icon", "aria-label": `next ${data.axis}`, onclick: () => step(1) }, "›"),
      where,
    ),
    chosen,
    gear,
    h(
      "nav",
      { class: "jumps", "aria-label": "Parts of the page" },
      Object.entries(PARTS).map(([part, place]) =>
        h(
          "button",
          {
            type: "button",
            class: "jump",
            onclick: () => document.querySelector(place).scrollIntoView({ block: "start" }),
          },
          part,
        ),
      ),
    ),
  );
  document.addEventListener("keydown", onKey);
  document.addEventListener("keyup", onKeyUp);
  document.addEventListener("pointerdown", outside);
  addEventListener("blur", away);
  const resized = new ResizeObserver(() =>
    document.documentElement.style.setProperty("--bar", `${bar.offsetHeight}px`),
  );
  resized.observe(bar);
  const end = () => {
    stop();
    resized.disconnect();
    document.removeEventListener("keydown", onKey);
    document.removeEventListener("keyup", onKeyUp);
    document.removeEventListener("pointerdown", outside);
    removeEventListener("blur", away);
  };
  return { element: bar, stop: end };
}

/** A tick below the slider where an alert began. */
function onsets(data) {
  const last = Math.max(1, data.places.length - 1);
  const ticks = data.runs.flatMap((run) =>
    run.alerts.map((alert) => {
      const at = data.places.findIndex((place) => place >= alert.places[0]);
      const title = `${run.name}: ${alert.name} since ${data.axis} ${alert.places[0]}`;
      return h("i", { class: `run-${run.index % 10}`, title, vars: { at: (at < 0 ? last : at) / last } });
    }),
  );
  return h("span", { class: "onsets", "aria-hidden": "true" }, ticks);
}

/** Which maps: in sight. */
function fields(data, state) {
  const layers = data.layers(state.method);
  const probes = data.probes.map((probe, i) => [String(i), `${probe.ids.length} images, ${probe.fingerprint}`]);
  const remark = untrusted(data, state.method, state.layer);
  return [
    data.probes.length > 1 &&
      select("Probe", probes, String(state.probe), (it) =>
        state.set({ probe: Number(it), show: "maps", class: "", group: "" }),
      ),
    select(
      "Method",
      data.methods.map((it) => [it, untrusted(data, it, state.layer) ? `${it} (not to be trusted)` : it]),
      state.method,
      (method) =>
        state.set({ method, layer: data.layers(method).includes(state.layer) ? state.layer : data.layers(method)[0] }),
      remark,
    ),
    layers.length > 1 &&
      select(
        "Layer",
        layers.map((it) => [it, it]),
        state.layer,
        (layer) => state.set({ layer }),
      ),
  ].filter(Boolean);
}

/** Why a method's maps show nothing, of the runs in which they do not; undefined where all is well. */
function untrusted(data, method, layer) {
  const said = data.runs.flatMap((run) =>
    run.untrusted.filter((it) => it.method === method && it.layer === layer).map((it) => `${run.name}: ${it.text}`),
  );
  return said.length ? said.join(". ") : undefined;
}

/** How maps are drawn: behind the gear. */
function looks(data, state) {
  return [
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
      { class: "field", title: "Of the hottest cell; cold ones stay the photograph" },
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
    h("span", { class: "muted" }, "Hold O: the originals"),
  ];
}

const check = (text, checked, choose, hint) =>
  h(
    "label",
    { class: "field check", title: hint },
    h("input", { type: "checkbox", checked, onchange: (event) => choose(event.target.checked) }),
    h("span", {}, text),
  );

/** What is drawn: maps, or differences; beside it the colours from end to end. */
export function shows(data, state) {
  const runs = data.runs.filter((run) => run.probeIndex === state.probe);
  const choices = [
    ["maps", "maps"],
    ...(runs.length > 1 ? runs.map((run) => [`run:${run.index}`, `difference to ${run.name}`]) : []),
  ];
  if (data.places.length > 1) {
    const pinned = state.show.startsWith("epoch:") ? state.show : `epoch:${data.places[0]}`;
    choices.push([pinned, `difference to ${data.axis} ${pinned.slice(6)}`]);
  }
  return [
    choices.length > 1 &&
      select(
        "Show",
        choices,
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
    legend(data, state),
  ];
}

export const pinText = (data, state) => `subtract ${data.axis} ${state.place}`;

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
