// What is out of sight is drawn when it comes into sight, so that the first paint and a step of the slider stay quick.

const NEAR = "150px 0px";
const known = new Set();

/** `draw()` of an element is done at once where it is in sight, else when it comes; `stop()` ends that. */
export function inSight(element, draw) {
  let [seen, due] = [false, false];
  const it = {
    draw() {
      due = !seen;
      if (seen) draw();
    },
    now() {
      if (due) draw();
      due = false;
    },
    stop() {
      watcher.disconnect();
      known.delete(it);
    },
  };
  const watcher = new IntersectionObserver(
    (entries) => {
      seen = entries.at(-1).isIntersecting;
      if (seen) it.now();
    },
    { rootMargin: NEAR },
  );
  watcher.observe(element);
  known.add(it);
  return it;
}

/** Draw what is due and out of sight: for paper, and for a picture of the page. */
export function drawAll() {
  for (const it of known) it.now();
}

/** Do something when what there is so far has been painted. */
export function afterPaint(job) {
  if (document.hidden) setTimeout(job);
  else requestAnimationFrame(() => setTimeout(job));
}
