// One panel: a canvas with its picture and map, its words, and the tooltip over its cells.
import { MEAN } from "./data.js";
import { h } from "./dom.js";
import { label, outline, overlay } from "./paint.js";
import { picture } from "./pictures.js";
import { cellWords, numberWords, outcomeWords, view, words } from "./view.js";

const tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });

export class Panel {
  /** @param open called when the panel is clicked; `pair` [method, layer] if not the chosen ones */
  constructor(data, state, run, image, open, pair) {
    Object.assign(this, { data, state, run, image, pair });
    this.canvas = h("canvas", { width: 1, height: 1 });
    this.caption = h("span", { class: "caption" });
    this.element = h("button", { type: "button", class: "panel", "aria-label": `${run.name}, ${data.imageName(run.probe, image)}`, onclick: () => open(image), data: { run: run.index, image } }, this.canvas, this.caption);
    this.canvas.style.aspectRatio = `${run.probe.width} / ${run.probe.height}`;
    this.canvas.addEventListener("pointermove", (event) => this.#hover(event));
    this.canvas.addEventListener("pointerleave", () => (tip.hidden = true));
  }

  draw() {
    const { data, state, run, image } = this;
    const it = (this.view = view(data, state, run, image, ...(this.pair ?? [])));
    this.element.setAttribute("aria-label", words(data, state, it, run, image));
    this.element.classList.toggle("gap", Boolean(it.gap));
    this.#write(it);
    if (it.gap) return;
    const ready = image === MEAN ? null : picture(run.probe, image, it.grey);
    if (ready instanceof Promise) ready.then(() => this.view === it && this.draw());
    else this.#paint(it, ready);
  }

  #paint(it, background) {
    const { canvas, state, run, image } = this;
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const width = Math.max(1, Math.round(canvas.clientWidth * scale));
    const height = Math.max(1, Math.round(canvas.clientHeight * scale));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    // Of a difference the picture is only context: half of the slider's way is enough.
    const opacity = !background ? 1 : it.change ? 0.5 + state.opacity / 2 : state.opacity;
    overlay(canvas, background, it.invalid ? null : { ...it, opacity, cells: state.cells });
    if (state.outlines && image !== MEAN) outline(canvas, run.probe.outlines, image, [run.probe.width, run.probe.height]);
    if (it.invalid) label(canvas, "no focus");
  }

  #write(it) {
    if (it.gap) return this.caption.replaceChildren(it.gap);
    const outcome = outcomeWords(this.data, this.run, it.frame, this.image);
    const said = outcome && h("span", { class: outcome.wrong ? "said wrong" : "said", title: `${outcome.wrong ? "wrongly " : ""}predicted ${outcome.name}` },
      outcome.wrong ? "✗ " : h("span", { class: "spare" }, "→ "), h("bdi", {}, outcome.name), h("span", { class: "spare" }, " ·"), ` ${outcome.sure}`);
    this.caption.replaceChildren(...[said, h("span", { class: "figures" }, it.invalid ? "" : numberWords(it))].filter(Boolean));
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
