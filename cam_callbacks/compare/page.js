
"use strict";
const { runs, box, charts } = JSON.parse(document.getElementById("data").textContent);
const plots = [...document.querySelectorAll(".plot")];
const hidden = new Set();
let cursor = null; // a place on the time axis, the same in all charts

/** Places on a chart's time axis that have a value, ascending. */
const places = charts.map(({ curves }) =>
  [...new Set(curves.flatMap(({ points }) => points.map(([at]) => at)))].sort((a, b) => a - b));
const nearest = (sorted, at) => sorted.reduce((best, it) => (Math.abs(it - at) < Math.abs(best - at) ? it : best), sorted[0]);

/** Move the line in every chart to one place, and say below each what the runs have there. */
function moveTo(at) {
  cursor = at;
  for (const plot of plots) {
    const index = Number(plot.dataset.chart);
    const { domain: [first, last], curves, unit } = charts[index];
    const line = plot.querySelector(".cursor");
    const output = plot.querySelector("output");
    const inside = at !== null && at >= first && at <= last;
    line.setAttribute("visibility", inside ? "visible" : "hidden");
    output.replaceChildren();
    if (!inside) continue;
    const share = first === last ? 0.5 : (at - first) / (last - first);
    line.setAttribute("transform", `translate(${box.left + share * (box.width - box.left - box.right)} 0)`);
    const place = document.createElement("span");
    place.textContent = `${unit} ${at}`;
    output.append(place);
    for (const { run, points } of curves) {
      if (hidden.has(run)) continue;
      const point = points.find(([x]) => x === at);
      const value = document.createElement("b");
      value.className = `run-${run % 10}`;
      value.title = runs[run];
      value.textContent = point ? point[1] : "–";
      output.append(value);
    }
  }
}

for (const plot of plots) {
  const index = Number(plot.dataset.chart);
  const chart = plot.querySelector(".chart");
  chart.addEventListener("pointermove", (event) => {
    const [first, last] = charts[index].domain;
    const { left, width } = chart.getBoundingClientRect();
    const x = ((event.clientX - left) / width) * box.width;
    const share = (x - box.left) / (box.width - box.left - box.right);
    if (places[index].length) moveTo(nearest(places[index], first + share * (last - first)));
  });
  chart.addEventListener("pointerleave", () => moveTo(null));
  plot.addEventListener("keydown", (event) => {
    const known = places[index];
    const here = cursor === null ? known.length - 1 : known.indexOf(nearest(known, cursor));
    const to = { ArrowLeft: cursor === null ? here : here - 1, ArrowRight: here + 1, Home: 0, End: known.length - 1 }[event.key];
    if (event.key === "Escape") moveTo(null);
    if (to === undefined || !known.length) return;
    event.preventDefault();
    moveTo(known[Math.min(Math.max(to, 0), known.length - 1)]);
  });
}

for (const chip of document.querySelectorAll(".chip")) {
  chip.addEventListener("click", () => {
    const run = Number(chip.dataset.run);
    const show = chip.getAttribute("aria-pressed") === "false";
    chip.setAttribute("aria-pressed", String(show));
    if (show) hidden.delete(run); else hidden.add(run);
    for (const it of document.querySelectorAll(`.curve[data-run="${run}"]`)) it.style.display = show ? "" : "none";
    for (const it of document.querySelectorAll(`.strip[data-run="${run}"]`)) it.hidden = !show;
    moveTo(cursor);
  });
}

const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".enlarge")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img").cloneNode();
    const scale = Math.max(1, Math.floor((innerWidth * 0.92) / image.width * 4) / 4);
    image.width = Math.round(image.width * scale);
    image.removeAttribute("height");
    dialog.querySelector(".stage").replaceChildren(image);
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
