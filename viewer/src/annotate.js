// Drawing boxes: where a model should look, and what it is suspected to look at; saved as a JSON file that ProbeSet takes.
import { h, named } from "./dom.js";
import { decodedPicture } from "./pictures.js";
import { save } from "./share.js";

const KINDS = {
  boxes: { title: "Object", hint: "where it should look (1)", colour: "rgb(92,255,157)", dash: [] },
  nuisance: {
    title: "Suspect",
    hint: "what it may look at and should not (2)",
    colour: "rgb(64,200,255)",
    dash: [6, 4],
  },
};
const SMALLEST = 2; // pixels of the probe's pictures
const kept = new Map(); // of each probe its images' boxes, while the page is open

/**
 * A dialog in which a person marks the images of a probe with the mouse.
 * @param names (image) → what stands above an image
 */
export function annotator(probe, names) {
  if (!kept.has(probe.fingerprint))
    kept.set(
      probe.fingerprint,
      probe.ids.map(() => ({ boxes: [], nuisance: [] })),
    );
  const marks = kept.get(probe.fingerprint);
  const undone = []; // what was drawn, the last one last: [image, kind]
  let [image, kind, dragged] = [0, "boxes", null];

  const canvas = h("canvas", { class: "drawn-on", tabindex: "0", "aria-label": "image: drag a box" });
  const context = canvas.getContext("2d");
  const title = h("h2", { id: "annotate-title" });
  const count = h("output", { class: "muted" });
  const tool = (key) =>
    h(
      "button",
      { type: "button", class: "tool", title: KINDS[key].hint, onclick: () => choose(key), data: { kind: key } },
      KINDS[key].title,
    );
  const tools = Object.keys(KINDS).map(tool);
  const button = (text, hint, action) =>
    h("button", { type: "button", class: "tool", title: hint, onclick: action }, text);
  const dialog = h(
    "dialog",
    { class: "annotator", "aria-labelledby": "annotate-title", onkeydown: (event) => onKey(event) },
    h(
      "header",
      {},
      title,
      button("Close", "What was drawn stays until the page is left", () => dialog.close()),
    ),
    h(
      "div",
      { class: "annotate-body" },
      canvas,
      h(
        "div",
        { class: "choices" },
        tools,
        button("Undo", "Take the last box back (U)", undo),
        button("‹ before", "(←)", () => go(image - 1)),
        button("Next ›", "(Enter or →)", () => go(image + 1)),
        button("Save boxes.json", 'For ProbeSet(..., boxes="boxes.json") and CAMCallback(boxes=...) (S)', saveAll),
        count,
      ),
      h(
        "p",
        { class: "muted" },
        "Drag a box around the object; choose Suspect for what should not decide. Images without a box are left out.",
      ),
    ),
  );

  function choose(key) {
    kind = key;
    for (const it of tools) it.setAttribute("aria-pressed", String(it.dataset.kind === kind));
  }

  function go(to) {
    image = Math.min(Math.max(to, 0), probe.ids.length - 1);
    draw();
  }

  function undo() {
    const last = undone.pop();
    if (!last) return;
    marks[last[0]][last[1]].pop();
    go(last[0]);
  }

  function draw() {
    const picture = decodedPicture(probe, image);
    if (picture instanceof Promise) return void picture.then(draw);
    const scale = Math.max(
      1,
      Math.min((innerWidth * 0.86) / probe.width, (innerHeight * 0.66) / probe.height, 900 / probe.width),
    );
    Object.assign(canvas, { width: Math.round(probe.width * scale), height: Math.round(probe.height * scale) });
    context.fillStyle = "#808080";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    for (const [key, of] of Object.entries(KINDS)) for (const box of marks[image][key]) outline(box, of, scale);
    if (dragged) outline(boxOf(dragged), KINDS[kind], scale);
    title.replaceChildren(named(names(image), 60));
    const marked = marks.filter((it) => it.boxes.length + it.nuisance.length).length;
    count.textContent = `image ${image + 1} of ${probe.ids.length}, ${marked} marked`;
  }

  function outline([x1, y1, x2, y2], { colour, dash }, scale) {
    for (const [style, width, pattern] of [
      ["rgba(16,18,20,.6)", 4, []],
      [colour, 2, dash],
    ]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.setLineDash(pattern);
      context.strokeRect(x1 * scale, y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale);
    }
    context.setLineDash([]);
  }

  /** Place of a pointer in pixels of the probe, inside the picture. */
  function at(event) {
    const box = canvas.getBoundingClientRect();
    const inside = (value, length, all) => Math.min(Math.max((value / length) * all, 0), all);
    return [
      inside(event.clientX - box.left, box.width, probe.width),
      inside(event.clientY - box.top, box.height, probe.height),
    ];
  }

  const boxOf = ([[ax, ay], [bx, by]]) =>
    [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)].map((it) => Math.round(it * 10) / 10);

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    dragged = [at(event), at(event)];
  });
  canvas.addEventListener("pointermove", (event) => dragged && ((dragged[1] = at(event)), draw()));
  canvas.addEventListener("pointerup", () => {
    if (!dragged) return;
    const box = boxOf(dragged);
    dragged = null;
    if (box[2] - box[0] >= SMALLEST && box[3] - box[1] >= SMALLEST) {
      marks[image][kind].push(box);
      undone.push([image, kind]);
    }
    draw();
  });
  canvas.addEventListener("pointercancel", () => ((dragged = null), draw()));

  function onKey(event) {
    if (event.ctrlKey || event.metaKey ? event.key !== "z" : event.altKey) return;
    const actions = {
      1: () => choose("boxes"), 2: () => choose("nuisance"), u: undo, z: undo, s: saveAll, n: () => go(image + 1),
      Enter: () => go(image + 1), ArrowRight: () => go(image + 1), ArrowLeft: () => go(image - 1), Backspace: undo,
    }; // prettier-ignore
    const action = event.key === "Enter" && event.target.matches("button") ? null : actions[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  function saveAll() {
    const entries = marks.map((it, i) => [probe.ids[i], it]).filter(([, it]) => it.boxes.length + it.nuisance.length);
    const content = { format: 1, size: [probe.height, probe.width], images: Object.fromEntries(entries) };
    save(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }), "boxes.json");
  }

  choose("boxes");
  const open = () => {
    dialog.showModal();
    draw();
    canvas.focus();
  };
  return { element: dialog, open };
}
