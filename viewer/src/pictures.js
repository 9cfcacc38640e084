// Probe pictures, decoded when they are first drawn, and kept in the size in which they are drawn.
import { outlines } from "./paint.js";

const decoded = new Map(); // address → an image element, a promise of it, or null for one that cannot be read
const kept = new Map(); // what and size → pixels or lines
const MOST_KEPT = 1500;

/** Pixels (RGBA bytes) of an image's picture at a size, in colour or in grey; a promise until it is decoded. */
export function pixels(probe, image, grey, width, height) {
  const element = decodedPicture(probe, image);
  if (element instanceof Promise) return element;
  if (element === null)
    return keep(`plain ${width} ${height}`, () =>
      new Uint8ClampedArray(4 * width * height).map((_, i) => (i % 4 === 3 ? 255 : 128)),
    );
  return keep(`${probe.pictures[image].length} ${probe.fingerprint} ${image} ${grey} ${width} ${height}`, () =>
    scaled(element, grey, width, height),
  );
}

/** An image's picture as an element to draw; a promise until it is decoded, null where there is none that can be read. */
export function decodedPicture(probe, image) {
  const source = probe.pictures?.[image];
  if (!source) return null;
  if (!decoded.has(source)) decoded.set(source, decode(source));
  return decoded.get(source);
}

/** The outlines of an image's regions at a size, as a canvas. */
export function lines(probe, image, width, height) {
  return keep(`lines ${probe.fingerprint} ${image} ${width} ${height}`, () =>
    outlines(probe.outlines, image, [probe.width, probe.height], width, height),
  );
}

function keep(key, make) {
  if (!kept.has(key)) {
    if (kept.size > MOST_KEPT) kept.clear();
    kept.set(key, make());
  }
  return kept.get(key);
}

async function decode(source) {
  const element = new Image();
  element.src = source;
  let known = null;
  try {
    await element.decode();
    known = element;
  } catch {
    // Shown as plain grey.
  }
  decoded.set(source, known);
  return known;
}

function scaled(element, grey, width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = width >= element.naturalWidth ? "low" : "high"; // low is bilinear; only high shrinks well
  if (grey) context.filter = "grayscale(1)";
  context.drawImage(element, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}
