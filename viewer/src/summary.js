// What can be read without touching anything: final and best values, alerts, distances between runs, what differs.
import { h, named, swatch } from "./dom.js";
import { shown } from "./format.js";

const SIDE_BY_SIDE = 3; // up to as many runs are columns; more are rows

/** The few numbers that say most, of the chosen method; all others on demand. */
export function summary(data, state) {
  const main = h("div", { class: "main-numbers" });
  const fill = () => main.replaceChildren(numbers(data, chosen(data, state)));
  state.listen((keys) => (keys.has("method") || keys.has("layer")) && fill());
  fill();
  const element = h(
    "section",
    { class: "summary", "aria-label": "Summary" },
    h("h2", {}, data.runs.length > 1 ? "Final values" : "Final values of this run"),
    main,
    h(
      "p",
      { class: "muted" },
      `↑ more is better, ↓ less is better; best @ ${data.axis}. ` +
        "A number without an arrow is a magnitude and no verdict: stable is not the same as right.",
    ),
    data.tables.map(extra),
    facts(data),
    h(
      "details",
      { class: "all-numbers" },
      h("summary", {}, "All numbers"),
      h(
        "div",
        { class: "tables" },
        data.summary.map((group) => numbers(data, group)),
      ),
      data.parts.some((part) => part.jsd) && distances(data),
    ),
  );
  return { element };
}

/** One table of what is in sight at once: the trainer's accuracy, and the headlines of the chosen method and of the looks. */
function chosen(data, state) {
  const part = data.parts.find((it) => it.method === state.method && it.layer === state.layer);
  const of = (group) => !group.method || (part ? group.title === part.title : group.method === state.method);
  const isMain = (key) => (data.numbers[key]?.user ? key === data.accuracy : data.numbers[key]?.headline);
  const rows = data.summary.filter(of).flatMap((group) => group.rows.filter((row) => isMain(row.key)));
  return { title: part?.title ?? state.method, rows };
}

/** One method's numbers: runs in columns, or, where there are many, in rows. */
function numbers(data, group) {
  const rows = group.rows.map((row) => ({
    ...row,
    number: data.numbers[row.key] ?? { key: row.key, title: row.key, meaning: "" },
  }));
  const runs = data.runs.map((run) =>
    h(
      "th",
      { scope: data.runs.length > SIDE_BY_SIDE ? "row" : "col" },
      swatch(run.index),
      named(run.name, data.runs.length > SIDE_BY_SIDE ? 26 : 40),
    ),
  );
  const corner = h("th", { scope: "col", class: "corner" }, named(group.title, 80));
  const values = (row, index) => value(data, row, row.cells[index]);
  if (data.runs.length <= SIDE_BY_SIDE) {
    return table(
      group.title,
      [corner, ...runs],
      rows.map((row) => [title(row.number, "row"), ...data.runs.map((_, index) => values(row, index))]),
    );
  }
  const main = rows.filter((row) => row.number.headline);
  const chosen = main.length ? main : rows;
  return table(
    group.title,
    [corner, ...chosen.map((row) => title(row.number, "col"))],
    data.runs.map((_, index) => [runs[index], ...chosen.map((row) => values(row, index))]),
    "many",
  );
}

function title(number, scope) {
  const arrow = { higher: ["↑", "more is better"], lower: ["↓", "less is better"] }[number.better];
  return h(
    "th",
    { scope, title: number.meaning || undefined },
    named(number.title, 40),
    arrow && [" ", h("span", { class: "arrow", role: "img", "aria-label": arrow[1], title: arrow[1] }, arrow[0])],
  );
}

function value(data, row, cell) {
  if (!cell) return h("td", { class: "none" }, "–");
  const ends = row.cells
    .filter(Boolean)
    .map((it) => it.final)
    .filter((it) => it !== null);
  const best =
    row.number.better &&
    new Set(ends).size > 1 &&
    cell.final === Math[row.number.better === "higher" ? "max" : "min"](...ends);
  return h(
    "td",
    { class: best ? "best" : undefined },
    shown(cell.final),
    cell.best !== null &&
      cell.best !== undefined && [
        " ",
        h(
          "small",
          { title: `best value, at ${data.axis} ${cell.best_at}` },
          `best ${shown(cell.best)} @ ${cell.best_at}`,
        ),
      ],
  );
}

/** How far apart the final maps of each two runs are. */
function distances(data) {
  const parts = data.parts.filter((part) => part.jsd);
  return h(
    "div",
    { class: "distances" },
    h("h3", {}, "How differently the runs look at the same images"),
    h(
      "p",
      { class: "muted" },
      "Jensen–Shannon divergence between their final maps, mean over the images: 0 the same focus, 1 disjoint.",
    ),
    h(
      "div",
      { class: "tables" },
      parts.map((part) =>
        table(
          `divergence, ${part.title}`,
          [
            h("th", { scope: "col", class: "corner" }, named(part.title, 80)),
            ...part.runs.map((run) => h("th", { scope: "col" }, swatch(run), named(data.runs[run].name, 18))),
          ],
          part.jsd.map((row, i) => [
            h("th", { scope: "row" }, swatch(part.runs[i]), named(data.runs[part.runs[i]].name, 26)),
            ...row.map((it, j) => distance(it, i === j)),
          ]),
          data.runs.length > 5 ? "matrix many" : "matrix",
        ),
      ),
    ),
  );
}

function distance(value, own) {
  if (own) return h("td", { class: "none" }, "·");
  return h("td", { class: "heat", vars: { heat: `${Math.round(Math.min(1, value ?? 0) * 100)}%` } }, shown(value));
}

/** What the runs are: in sight what differs between them, such as a parameter; what they share on demand. */
function facts(data) {
  const differs = (fact) => new Set(fact.values).size > 1;
  const differing = data.facts.filter(differs);
  const shared = data.facts.filter((fact) => !differs(fact));
  const rows = (label, some, kind) =>
    table(
      label,
      [h("td", {}), ...data.runs.map((run) => h("th", { scope: "col" }, swatch(run.index), named(run.name, 40)))],
      some.map((fact) => [
        h("th", { scope: "row" }, named(fact.title, 60)),
        ...fact.values.map((it) => h("td", {}, named(it, 100))),
      ]),
      kind,
    );
  return [
    differing.length > 0 &&
      h("div", {}, h("h3", {}, "What differs between the runs"), rows("what differs", differing, "facts differs")),
    shared.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, data.runs.length > 1 ? "What the runs share" : "About the run"),
        rows("what is shared", shared, "facts"),
      ),
  ];
}

/** A table that whoever made the data adds: { title, note, head: [text], rows: [[text]] }. */
function extra({ title: name, note, head, rows }) {
  return h(
    "div",
    { class: "extra" },
    h("h3", {}, named(name, 100)),
    note && h("p", { class: "muted" }, note),
    table(
      name,
      head.map((it) => h("th", { scope: "col" }, named(String(it), 60))),
      rows.map(([first, ...cells]) => [
        h("th", { scope: "row" }, named(String(first), 60)),
        ...cells.map((it) => h("td", {}, named(String(it), 100))),
      ]),
    ),
  );
}

function table(label, head, rows, kind) {
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h(
      "table",
      { class: kind },
      h("thead", {}, h("tr", {}, head)),
      h(
        "tbody",
        {},
        rows.map((cells) => h("tr", {}, cells)),
      ),
    ),
  );
}
