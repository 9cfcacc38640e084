// The tab CAM: which runs have records, and the viewer's page on the chosen ones in a frame of the same origin.
// TensorBoard's security policy allows scripts of its own origin only, and no inline ones in this document.

const MOST = 10; // runs side by side
const MANY = 12; // runs from which on a search field helps
const EVERY = 5000; // ms between two questions whether the records have changed
const here = (path) => new URL(path, import.meta.url).href;

/** An element with attributes and children; text becomes text, whatever is in it. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** TensorBoard imports this module into an empty document and calls this. */
export async function render() {
  const tab = new Tab();
  document.documentElement.lang = "en";
  document.head.append(element("link", { rel: "stylesheet", href: here("./index.css") }));
  document.body.replaceChildren(tab.bar, tab.pages);
  await tab.look();
  setInterval(() => document.hidden || tab.look(), EVERY);
}

class Tab {
  bar = element("form", { class: "bar", "aria-label": "Runs with records" });
  pages = element("div", { class: "pages" });
  search = element("input", { type: "search", placeholder: "filter runs", "aria-label": "Filter runs" });
  runs = [];
  known = new Set(); // names of runs that were there at any time
  chosen = null; // a Set of names, once there are runs
  shown = ""; // the query of what the frame shows
  frame = null;

  constructor() {
    this.bar.addEventListener("submit", (event) => event.preventDefault());
    this.search.addEventListener("input", () => this.list());
  }

  /** Ask which runs there are; show what is new. */
  async look() {
    this.theme();
    try {
      const answer = await fetch(here("./runs"));
      if (!answer.ok) throw new Error(await answer.text());
      const { runs } = await answer.json();
      const changed = JSON.stringify(runs) !== JSON.stringify(this.runs);
      this.runs = runs;
      if (changed || !this.chosen) this.list();
    } catch (error) {
      if (!this.frame) this.say(`The runs cannot be listed: ${error.message}`);
      return; // TensorBoard is being restarted, say; what is shown stays
    }
    this.show();
  }

  /** The runs as a row of check boxes. */
  list() {
    const good = this.runs.filter((run) => !run.problem).map((run) => run.name);
    for (const name of good) {
      if (this.chosen && !this.known.has(name) && this.chosen.size < MOST) this.chosen.add(name); // a run that has just begun
      this.known.add(name);
    }
    const lost = this.chosen?.size && ![...this.chosen].some((name) => good.includes(name)); // their folders are gone
    if (good.length && (!this.chosen || lost)) this.chosen = new Set(good.slice(0, MOST));
    const words = this.search.value.toLowerCase();
    const rows = this.runs.filter((run) => run.name.toLowerCase().includes(words)).map((run) => this.row(run));
    const focused = document.activeElement;
    this.bar.replaceChildren(...(this.runs.length > MANY ? [this.search] : []), ...rows);
    if (focused?.tagName === "INPUT")
      [...this.bar.querySelectorAll("input")].find((it) => it.type === focused.type && it.value === focused.value)?.focus();
  }

  row({ name, looks, problem }) {
    const box = element("input", { type: "checkbox", value: name });
    box.checked = this.chosen?.has(name) ?? false;
    box.disabled = Boolean(problem) || (!box.checked && (this.chosen?.size ?? 0) >= MOST);
    box.addEventListener("change", () => {
      this.chosen[box.checked ? "add" : "delete"](name);
      this.list();
      this.show();
    });
    const said = problem || `${looks} look${looks === 1 ? "" : "s"}`;
    return element("label", problem ? { class: "problem", title: problem } : { title: name }, box,
      element("bdi", {}, name), element("small", {}, said.length > 60 ? `${said.slice(0, 59)}…` : said));
  }

  /** Load the page of the chosen runs. */
  show() {
    const chosen = this.runs.filter((run) => !run.problem && this.chosen?.has(run.name));
    if (!chosen.length) {
      this.shown = "";
      return this.say(this.runs.length
        ? "Choose a run above."
        : "No records of cam-callbacks under the log folder yet: the first are written at the first validation.");
    }
    const query = String(new URLSearchParams(chosen.map(({ name }) => ["run", name])));
    if (query === this.shown) return; // the page asks for new looks itself
    this.shown = query;
    const hash = this.frame?.contentWindow.location.hash ?? ""; // the view stays as it is
    this.frame = element("iframe", { title: "Where the runs look", src: here(`./page?${query}`) + hash });
    this.frame.addEventListener("load", () => this.theme());
    this.pages.replaceChildren(this.frame);
  }

  say(words) {
    this.frame = null;
    this.pages.replaceChildren(element("p", { class: "note" }, words));
  }

  /** Light or dark as TensorBoard is. */
  theme() {
    let dark = matchMedia("(prefers-color-scheme: dark)").matches;
    try {
      dark = parent.document.body.classList.contains("dark-mode");
    } catch { /* a parent of another origin: its own choice stays unknown */ }
    const scheme = dark ? "dark" : "light";
    document.documentElement.style.colorScheme = scheme;
    const page = this.frame?.contentDocument?.documentElement;
    if (!page || page.dataset.theme === scheme) return;
    page.dataset.theme = scheme;
    this.frame.contentWindow.dispatchEvent(new Event("themechange"));
  }
}
