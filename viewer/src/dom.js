// Elements from text. Nothing here reads HTML, so no name can become code.

/** An element: `h("button", { class: "chip", onclick: f, "aria-pressed": true, data: { run: 1 } }, "text", child)`. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "vars") for (const [key, it] of Object.entries(value)) element.style.setProperty(`--${key}`, it);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A user's name for something: shortened in its middle, whole in its tooltip, and apart from the text around it. */
export function named(text, longest = 60) {
  const letters = [...text];
  if (letters.length <= longest) return h("bdi", {}, text);
  return h("bdi", { title: text }, shorten(text, longest));
}

const SHORT = 12; // letters that always have room

/** A name on one line that loses letters before its end where there is too little room: its last ones often tell it apart. */
export function tailed(element, text) {
  const letters = text.length > SHORT ? [...text] : [];
  const isLong = letters.length > SHORT;
  element.classList.toggle("tailed", isLong);
  if (!isLong) return void (element.textContent = text);
  element.replaceChildren(
    h("span", { class: "start" }, letters.slice(0, -6).join("")),
    h("span", { class: "end" }, letters.slice(-6).join("")),
  );
}

export function shorten(text, longest) {
  const letters = [...text];
  if (letters.length <= longest) return text;
  const half = Math.floor((longest - 1) / 2);
  return `${letters.slice(0, half).join("")}…${letters.slice(-half).join("")}`;
}

/** A labelled `<select>` of [value, text] pairs. */
export function select(label, options, value, choose, hint) {
  const box = h(
    "select",
    { "aria-label": label, onchange: () => choose(box.value) },
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, shorten(text, 60))),
  );
  box.value = value;
  return h("label", { class: "field", title: hint }, h("span", {}, label), box);
}

/** Its colour and its number stand for a run wherever it occurs. */
export const swatch = (index) =>
  h("span", { class: `swatch run-${index % 10}`, "aria-hidden": "true" }, String(index + 1));

/** `listener()` is called when the colours change from light to dark or back; returns what ends that. */
export function onTheme(listener) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", listener);
  addEventListener("themechange", listener); // of a page around this one, which sets data-theme
  return () => {
    dark.removeEventListener("change", listener);
    removeEventListener("themechange", listener);
  };
}

/** Is the user typing or choosing, so that arrow keys are not for the slider? */
export const isEditing = (target) =>
  target instanceof Element && target.matches("input:not([type=checkbox]), select, textarea");

/** Replace what an element holds; what had the keyboard's focus gets it back. */
export function refill(box, children) {
  const active = box.contains(document.activeElement) ? document.activeElement : null;
  box.replaceChildren(...children);
  if (active)
    [...box.querySelectorAll(active.tagName)]
      .filter((it) => it.ariaLabel === active.ariaLabel && it.className === active.className)
      .forEach((it) => {
        it.focus();
        if (it.type === "search") it.setSelectionRange(it.value.length, it.value.length);
      });
}
