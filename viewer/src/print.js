// A sheet for paper: verdict, wall, what decides, curves, and the twelve worst images, painted before it is printed.
import { h, named } from "./dom.js";
import { order } from "./order.js";
import { Panel } from "./panel.js";
import { decodedPicture } from "./pictures.js";
import { drawAll } from "./sight.js";

const WORST = 12;
const WIDTH = 150; // pixels of a panel

/** The worst images; filled when the page is about to be printed, for which their pictures are decoded in idle time. */
export function printed(data, state) {
  const cards = h("div", { class: "print-cards" });
  const element = h("section", { class: "print-only", "aria-hidden": "true" }, h("h2", {}, "The worst images"), cards);
  const runs = () => data.runs.filter((run) => run.probeIndex === state.probe && !state.hidden.has(run.index));
  const worst = () => order(data, state, runs()).slice(0, WORST);

  function paint() {
    drawAll();
    cards.replaceChildren(
      ...worst().map((image) => {
        const panels = runs().map((run) => new Panel(data, state, run, image, () => {}));
        for (const panel of panels) panel.draw(WIDTH);
        return h(
          "div",
          {},
          h("p", {}, named(data.imageName(data.probes[state.probe], image), 30)),
          h(
            "div",
            { class: "tiles", vars: { runs: panels.length } },
            panels.map((it) => it.element),
          ),
        );
      }),
    );
  }

  const after = () => cards.replaceChildren();
  addEventListener("beforeprint", paint);
  addEventListener("afterprint", after);
  const idle = globalThis.requestIdleCallback ?? ((job) => setTimeout(job, 500));
  idle(() => worst().forEach((image) => decodedPicture(data.probes[state.probe], image)));
  const stop = () => (removeEventListener("beforeprint", paint), removeEventListener("afterprint", after));
  return { element, stop };
}
