// What the user has chosen, kept in the URL's hash where the page is allowed to.

/** Text values of the hash → values of the state, and back. */
const KINDS = {
  place: Number, at: Number, probe: Number, opacity: Number,
  method: String, layer: String, colormap: String, scale: String, show: String,
  sort: String, filter: String, search: String, section: String, class: String, group: String, lines: String, beside: String,
  cells: (text) => text === "1", outlines: (text) => text === "1",
  detail: (text) => (text === "" ? null : Number(text)),
  original: () => false, // as long as a key is held
  hidden: (text) => new Set(text.split(",").filter(Boolean).map(Number)),
};
const written = (value) =>
  value instanceof Set ? [...value].join(",") : value === true ? "1" : value === false ? "0" : value === null ? "" : String(value);

export class State {
  defaults;
  #listeners = [];
  #writing;

  /** @param before the state of the data shown before, whose choices are kept; without it those of the address */
  constructor(defaults, before) {
    this.defaults = defaults;
    Object.assign(this, defaults, before ? Object.fromEntries(Object.keys(KINDS).map((key) => [key, before[key]])) : fromHash());
  }

  /** Change some values and tell everybody which. */
  set(changes) {
    const changed = Object.keys(changes).filter((key) => written(this[key]) !== written(changes[key]));
    if (!changed.length) return;
    Object.assign(this, changes);
    clearTimeout(this.#writing); // browsers take only so many addresses a minute, and a slider can be dragged
    this.#writing = setTimeout(() => this.write(), 200);
    const keys = new Set(changed);
    for (const listener of this.#listeners) listener(keys);
  }

  /** `listener(keys)` is called with the names of what has changed. */
  listen(listener) {
    this.#listeners.push(listener);
  }

  /** Into the address, which is otherwise done when the user pauses. */
  write() {
    const parts = new URLSearchParams();
    for (const key of Object.keys(KINDS).filter((key) => key !== "original")) {
      if (written(this[key]) !== written(this.defaults[key])) parts.set(key, written(this[key]));
    }
    try {
      history.replaceState(null, "", `#${parts}`);
    } catch {
      // A sandboxed frame without an address of its own: the view is not kept there.
    }
  }
}

function fromHash() {
  const found = {};
  for (const [key, text] of new URLSearchParams(location.hash.slice(1))) {
    const value = Object.hasOwn(KINDS, key) ? KINDS[key](text) : undefined;
    if (value !== undefined && !Number.isNaN(value)) found[key] = value;
  }
  return found;
}
