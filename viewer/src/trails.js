// Accuracy against focus: the way of each run over the epochs. Up is right, right is on the object.
import { h, onTheme } from "./dom.js";
import { shown, times } from "./format.js";
import { inSight } from "./sight.js";

const HEIGHT = 230;
const PAD = { left: 46, right: 14, top: 12, bottom: 34 };
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** @param mark opens the drawing of boxes */
export function trails(data, state, mark) {
  const canvas = h("canvas", { class: "trail" });
  const why = h("p", { class: "muted" });
  const element = h(
    "div",
    { class: "trails", role: "group", "aria-label": "Accuracy against focus" },
    h("h2", {}, "Accuracy against focus"),
    why,
    canvas,
  );
  const accuracy = data.accuracy;

  const points = (run) => {
    const right = run.seriesOf(accuracy)?.mean;
    const focus = run.seriesOf("on_target_enrichment", state.method, state.layer)?.mean;
    if (!right || !focus) return [];
    return run.places
      .map((place, i) => ({ place, x: focus[i], y: right[i] }))
      .filter(({ x, y }) => x !== null && y !== null && x !== undefined && y !== undefined);
  };

  function draw() {
    const runs = data.runs.filter((run) => !state.hidden.has(run.index));
    const ways = runs.map((run) => ({ run, way: points(run) })).filter(({ way }) => way.length);
    canvas.hidden = !ways.length;
    why.textContent = ways.length ? "A point an epoch; the large one is the slider's." : reason(data, runs, state);
    if (!ways.length) {
      const measured = runs.some((run) => run.fields.some((field) => field.numbers.on_target_enrichment));
      if (!measured) why.append(" ", h("button", { type: "button", class: "tool", onclick: mark }, "Draw boxes"));
      return;
    }
    const scale = Math.min(2, devicePixelRatio || 1);
    const width = canvas.parentElement.clientWidth || 360;
    Object.assign(canvas, { width: width * scale, height: HEIGHT * scale });
    canvas.style.height = `${HEIGHT}px`;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    paint(context, width, ways);
    const ends = ways.map(
      ({ run, way }) => `${run.name} ends at ${times(way.at(-1).x)} on the object, ${accuracy} ${shown(way.at(-1).y)}`,
    );
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", ends.join("; "));
  }

  function paint(context, width, ways) {
    const xs = ways.flatMap(({ way }) => way.map(({ x }) => x));
    const ys = ways.flatMap(({ way }) => way.map(({ y }) => y));
    const most = Math.max(1.5, ...xs) * 1.06;
    const [low, high] = [Math.min(0, ...ys), Math.max(1, ...ys)];
    const at = (x, y) => [
      PAD.left + (x / most) * (width - PAD.left - PAD.right),
      HEIGHT - PAD.bottom - ((y - low) / (high - low)) * (HEIGHT - PAD.top - PAD.bottom),
    ];
    axes(context, width, at, most, low, high);
    for (const { run, way } of ways) trail(context, at, run, way);
  }

  function axes(context, width, at, most, low, high) {
    const [left, bottom] = at(0, low);
    const [chance, top] = at(1, high);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = color("bad-ground");
    context.fillRect(left, top, chance - left, (bottom - top) / 2);
    context.fillStyle = context.strokeStyle = color("muted");
    context.lineWidth = 1;
    context.strokeRect(left + 0.5, top + 0.5, width - PAD.left - PAD.right, bottom - top);
    context.setLineDash([4, 4]);
    context.beginPath();
    context.moveTo(chance, top);
    context.lineTo(chance, bottom);
    context.stroke();
    context.setLineDash([]);
    context.textAlign = "center";
    const step = most > 8 ? 4 : most > 4 ? 2 : 1;
    for (let x = 0; x <= most; x += step) context.fillText(`${x}×`, at(x, low)[0], bottom + 14);
    context.fillText("on the object; 1× is chance", (left + width - PAD.right) / 2, bottom + 28);
    context.textAlign = "right";
    for (const y of [low, (low + high) / 2, high])
      context.fillText(String(Number(y.toPrecision(3))), left - 5, at(0, y)[1] + 4);
    context.textAlign = "left";
    context.fillStyle = color("bad");
    for (const [i, words] of ["right for the", "wrong reason"].entries())
      if (chance - left > 74) context.fillText(words, left + 6, top + 16 + 13 * i);
    context.save();
    context.fillStyle = color("muted");
    context.translate(11, (top + bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText(accuracy.slice(0, 26), 0, 0);
    context.restore();
  }

  function trail(context, at, run, way) {
    context.strokeStyle = context.fillStyle = color(`r${run.index % 10}`);
    context.lineWidth = 1.5;
    context.beginPath();
    for (const { x, y } of way) context.lineTo(...at(x, y));
    context.stroke();
    for (const { x, y } of way) dot(context, at(x, y), 2.2);
    const here = way.findLast(({ place }) => place <= state.place) ?? way[0];
    const [x, y] = at(here.x, here.y);
    dot(context, [x, y], 8);
    context.fillStyle = color("paper");
    context.textAlign = "center";
    context.font = "700 10px system-ui, sans-serif";
    context.fillText(String(run.index + 1), x, y + 3.5);
  }

  const sight = inSight(element, draw);
  const redraw = () => sight.draw();
  state.listen((keys) => ["place", "method", "layer", "hidden"].some((key) => keys.has(key)) && redraw());
  const deaf = onTheme(redraw);
  const resized = new ResizeObserver(redraw);
  resized.observe(element);
  return { element, stop: () => (resized.disconnect(), sight.stop(), deaf()) };
}

function dot(context, [x, y], radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function reason(data, runs, state) {
  if (!data.accuracy) return "The trainer logged no accuracy to hold against the focus.";
  const measured = runs.some((run) => run.seriesOf("on_target_enrichment", state.method, state.layer));
  return measured
    ? "No look has both an accuracy and a focus."
    : "Whether it looks at the object nobody knows without masks or boxes on the probe.";
}
