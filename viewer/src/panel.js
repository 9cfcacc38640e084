// One panel: a canvas with its picture and map, its words, and the tooltip over its cells.
import { MEAN } from "./data.js";
import { h, tailed } from "./dom.js";
import { label, lay, overlay } from "./paint.js";
import { lines, pixels } from "./pictures.js";
import { cellWords, numberWords, outcomeWords, view, words } from "./view.js";

const REST_MS = 100; // that the slider has to rest
const tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });

/** What panels show is put into words when the slider rests: nobody can be told forty pictures in a moment. */
const undescribed = new Set();
let [resting, changed] = [null, 0];
function describeSoon(panel) {
  undescribed.add(panel);
  changed = performance.now();
  resting ??= setTimeout(describe, REST_MS);
}

function describe() {
  if (performance.now() - changed < REST_MS - 5) return void (resting = setTimeout(describe, REST_MS));
  resting = null;
  for (const it of undescribed) it.describe();
  undescribed.clear();
}

export class Panel {
  /** @param open called when the panel is clicked; `pair` [method, layer] if not the chosen ones */
  constructor(data, state, run, image, open, pair) {
    Object.assign(this, { data, state, run, image, pair });
    this.canvas = h("canvas", { width: 1, height: 1 });
    const texts = (this.texts = {
      sign: h("span", { class: "sign" }),
      name: h("bdi"),
      sure: h("span"),
      figures: h("span", { class: "figures" }),
    });
    texts.said = h("span", { class: "said" }, texts.sign, texts.name, h("span", { class: "spare" }, " ·"), texts.sure);
    this.caption = h("span", { class: "caption" }, texts.said, texts.figures);
    this.element = h(
      "button",
      {
        type: "button",
        class: "panel",
        "aria-label": `${run.name}, ${data.imageName(run.probe, image)}`,
        onclick: () => open(image),
        data: { run: run.index, image },
      },
      this.canvas,
      this.caption,
    );
    this.canvas.style.aspectRatio = `${run.probe.width} / ${run.probe.height}`;
    this.canvas.addEventListener("pointermove", (event) => this.#hover(event));
    this.canvas.addEventListener("pointerleave", () => (tip.hidden = true));
  }

  /** @param width of the canvas on the page, where the caller has measured it for all panels at once */
  draw(width) {
    this.width = width ?? this.canvas.clientWidth;
    const { data, state, run, image } = this;
    const it = (this.view = view(data, state, run, image, ...(this.pair ?? [])));
    describeSoon(this);
    this.element.classList.toggle("gap", Boolean(it.gap));
    this.#write(it);
    if (!it.gap) this.#paint(it);
  }

  describe() {
    const { data, state, run, image, pair } = this;
    this.element.setAttribute("aria-label", words(data, state, this.view, run, image, pair?.[0]));
  }

  #paint(it) {
    const { canvas, state, run, image } = this;
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const width = Math.max(1, Math.round(this.width * scale));
    const height = Math.max(1, Math.round((width * run.probe.height) / run.probe.width));
    const background = pixels(image === MEAN ? {} : run.probe, image, Boolean(it.grey), width, height);
    if (background instanceof Promise) return void background.then(() => this.view === it && this.#paint(it));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const bare = image === MEAN || !run.probe.pictures;
    // Of a difference the picture is only context: half of the slider's way is enough.
    const opacity = bare ? 1 : it.change ? 0.5 + state.opacity / 2 : state.opacity;
    overlay(
      canvas,
      background,
      it.invalid || state.original
        ? null
        : { ...it, opacity, fades: bare ? "no" : it.change ? "middle" : "low", cells: state.cells },
    );
    if (state.outlines && image !== MEAN) lay(canvas, lines(run.probe, image, width, height));
    if (it.invalid) label(canvas, "no focus");
  }

  #write(it) {
    const outcome = it.gap ? null : outcomeWords(this.data, this.run, it.frame, this.image);
    const { said, sign, name, sure, figures } = this.texts;
    said.hidden = !outcome;
    figures.textContent = it.gap ?? (it.invalid ? "" : numberWords(it));
    figures.classList.toggle("why", Boolean(it.gap));
    if (!outcome) return;
    said.className = outcome.wrong ? "said wrong" : "said";
    said.title = `${outcome.wrong ? "wrongly " : ""}predicted ${outcome.name}`;
    sign.textContent = outcome.wrong ? "✗ " : "→ ";
    if (this.named !== outcome.name) tailed(name, outcome.name);
    this.named = outcome.name;
    sure.textContent = ` ${outcome.sure}`;
  }

  #hover(event) {
    const it = this.view;
    if (!it || it.gap || it.invalid) return;
    const box = this.canvas.getBoundingClientRect();
    const [rows, columns] = it.grid;
    const row = Math.min(rows - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * rows)));
    const column = Math.min(columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * columns)));
    tip.textContent = cellWords(it, row * columns + column);
    tip.hidden = false;
    (this.element.closest("dialog") ?? document.body).append(tip);
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8)}px`;
  }
}
