// What can be taken along: a link to this view, a picture for a message, the numbers of this place, an animation of one image.
import { h } from "./dom.js";
import { encodeGif } from "./gif.js";
import { order } from "./order.js";
import { Panel } from "./panel.js";
import { drawAll } from "./sight.js";

const SCALE = 2; // pixels of the copied picture for one of the page
const GIF_MS = 350;

/** Buttons; `about()` is what the page shows at the moment. */
export function sharing(data, state, mark) {
  const said = h("output", { class: "muted", "aria-live": "polite" });
  const tell = (words) => {
    said.textContent = words;
    setTimeout(() => said.textContent === words && (said.textContent = ""), 4000);
  };
  const button = (text, title, action) =>
    h(
      "button",
      {
        type: "button",
        class: "tool",
        title,
        onclick: () => Promise.resolve(action()).catch((error) => tell(error.message)),
      },
      text,
    );
  return h(
    "span",
    { class: "sharing" },
    said,
    h(
      "button",
      {
        type: "button",
        class: "tool",
        title: "Mark where it should look, and what you suspect, on the probe images",
        onclick: mark,
      },
      "Draw boxes",
    ),
    button("Copy link", "The address of this view, with the part of the page that is in sight", async () =>
      tell(await copyLink(state)),
    ),
    button("Copy picture", "Verdicts, what lies under the focus, and the curves, as a PNG", async () =>
      tell(await copyPicture(data)),
    ),
    button("CSV", "A row for each image and run at this place", () => tell(saveCsv(data, state))),
  );
}

/** The part of the page that is in sight, by its class. */
export function sectionInSight() {
  const sections = [...document.querySelectorAll("main section")];
  const below = sections.find((it) => it.getBoundingClientRect().bottom > innerHeight / 3);
  return below?.classList[0] ?? "";
}

async function copyLink(state) {
  const section = sectionInSight();
  state.set({ section });
  state.write();
  await copyText(location.href);
  return "link copied";
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Not allowed on a page from a disk, or in a frame: the way of before there was a clipboard.
    const box = h("textarea", { class: "offscreen" });
    box.value = text;
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    if (!done) throw new Error("this browser does not let the page copy; take the address from its bar");
  }
}

async function copyPicture(data) {
  const canvas = picture(data);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    return "picture copied";
  } catch {
    save(blob, "cam-verdict.png");
    return "picture saved: this browser does not let the page copy it";
  }
}

/** Verdicts, the wall and the curves on one canvas, in the colours of the page. */
export function picture(data) {
  drawAll();
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  const wall = document.querySelector(".crops");
  const plots = [...document.querySelectorAll(".curves > .plots .plot")];
  const width = Math.max(760, wall.offsetWidth + 40);
  const canvas = h("canvas");
  const context = canvas.getContext("2d");
  const across = Math.max(1, Math.floor((width - 40) / 320));
  const lines = [];
  context.font = "15px system-ui, sans-serif";
  for (const run of data.runs) {
    const words = `${data.runs.length > 1 ? `${run.index + 1} ${run.name}: ` : ""}${run.verdict.text}`;
    lines.push(...wrapped(context, words, width - 66).map((text, i) => ({ text, run, first: i === 0 })));
  }
  const wallTop = 24 + lines.length * 21 + 14;
  const plotTop = wallTop + wall.offsetHeight + 22;
  const plotHeight = 262;
  const height = plotTop + Math.ceil(plots.length / across) * plotHeight + 16;
  Object.assign(canvas, { width: width * SCALE, height: height * SCALE });
  context.scale(SCALE, SCALE);
  context.fillStyle = color("paper");
  context.fillRect(0, 0, width, height);
  const write = (text, x, y, ink, font) => (
    (context.fillStyle = color(ink)),
    (context.font = font),
    context.fillText(text, x, y)
  );
  for (const [i, { text, run, first }] of lines.entries()) {
    const y = 32 + i * 21;
    if (first)
      write(
        { alarm: "▲", clear: "✓", open: "○" }[run.verdict.state],
        20,
        y,
        run.verdict.state === "alarm" ? "bad" : "good",
        "15px system-ui, sans-serif",
      );
    write(text, 42, y, "ink", "15px system-ui, sans-serif");
  }
  copyWall(context, wall, 20, wallTop, write);
  for (const [i, plot] of plots.entries()) {
    const [x, y] = [20 + (i % across) * 320, plotTop + Math.floor(i / across) * plotHeight];
    write(plot.querySelector("figcaption b").textContent, x, y + 12, "ink", "bold 13px system-ui, sans-serif");
    const drawn = plot.querySelector("canvas");
    const shown = Math.min(300 / drawn.clientWidth, 200 / drawn.clientHeight);
    if (drawn.width) context.drawImage(drawn, x, y + 18, drawn.clientWidth * shown, drawn.clientHeight * shown);
    let left = x;
    for (const value of plot.querySelectorAll(".readout > *")) {
      const run = [...value.classList].find((name) => name.startsWith("run-"));
      write(value.textContent, left, y + 238, run ? `r${run.slice(4)}` : "muted", "12px system-ui, sans-serif");
      left += context.measureText(value.textContent).width + 10;
    }
  }
  return canvas;
}

function copyWall(context, wall, left, top, write) {
  const from = wall.getBoundingClientRect();
  for (const it of wall.children) {
    const box = it.getBoundingClientRect();
    const [x, y] = [left + box.left - from.left, top + box.top - from.top];
    if (it.matches("canvas")) context.drawImage(it, x, y, box.width, box.height);
    else if (it.textContent)
      write(
        it.textContent,
        x,
        y + box.height / 2 + 4,
        it.matches(".runname") ? "ink" : "muted",
        "12.5px system-ui, sans-serif",
      );
  }
}

function wrapped(context, text, width) {
  const lines = [];
  for (const word of text.split(" ")) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && context.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

/** A row for each image and run at the place that is shown, of the images that are. */
export function csv(data, state) {
  const runs = data.runs.filter((run) => run.probeIndex === state.probe && !state.hidden.has(run.index));
  const names = [...new Set(runs.flatMap((run) => run.fields.flatMap((field) => Object.keys(field.numbers))))];
  const { probe } = runs[0] ?? data.runs[0];
  const rows = [["run", data.axis, "image", "label", "predicted", "confidence", "method", "layer", ...names]];
  for (const image of order(data, state, runs))
    for (const run of runs) {
      const frame = run.frame(state.place);
      const field = run.field(state.method, state.layer);
      if (!field || frame < 0) continue;
      const outcome = run.outcome(frame, image);
      const label = probe.labels ? data.className(probe, probe.labels[image]) : "";
      const said = outcome ? [data.className(probe, outcome.prediction), outcome.confidence ?? ""] : ["", ""];
      const values = names.map((name) => field.number(name, frame, image) ?? "");
      rows.push([run.name, state.place, probe.ids[image], label, ...said, state.method, state.layer, ...values]);
    }
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** A cell that no spreadsheet takes for a formula. */
function cell(value) {
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function saveCsv(data, state) {
  save(new Blob([csv(data, state)], { type: "text/csv" }), `cam-${data.axis}-${state.place}.csv`);
  return "CSV saved";
}

/** One image of all shown runs over the places of the time axis. */
export function saveGif(data, state, image) {
  const runs = data.runs.filter((run) => run.probeIndex === state.probe && !state.hidden.has(run.index));
  const frames = data.places.map((place) => frameOf(data, state, runs, image, place));
  save(new Blob([encodeGif(frames, GIF_MS)], { type: "image/gif" }), `cam-${data.imageName(runs[0].probe, image)}.gif`);
}

function frameOf(data, state, runs, image, place) {
  const { width, height } = runs[0].probe;
  const side = 220;
  const high = Math.round((side * height) / width);
  const canvas = h("canvas", { width: runs.length * (side + 6) - 6, height: high + 20 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#222";
  context.font = "12px system-ui, sans-serif";
  const then = new Proxy(state, { get: (target, key) => (key === "place" ? place : target[key]) });
  for (const [i, run] of runs.entries()) {
    const panel = new Panel(data, then, run, image, () => {});
    panel.draw(side);
    if (!panel.view.gap) context.drawImage(panel.canvas, i * (side + 6), 0, side, high);
    context.fillText(`${run.name.slice(0, 18)} · ${data.axis} ${place}`, i * (side + 6), high + 14);
  }
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
