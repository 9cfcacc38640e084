// Probe pictures, decoded once, when they are first drawn.

const decoded = new Map(); // address → { colour, grey } or a promise of it; null for one that cannot be read

/** The picture of an image as a canvas, in colour or in grey: null where there is none, a promise until it is decoded. */
export function picture(probe, image, grey) {
  const source = probe.pictures?.[image];
  if (!source) return null;
  if (!decoded.has(source)) decoded.set(source, decode(source));
  const known = decoded.get(source);
  return known instanceof Promise || known === null ? known : grey ? known.grey() : known.colour;
}

async function decode(source) {
  const element = new Image();
  element.src = source;
  let known = null;
  try {
    await element.decode();
    const colour = canvasOf(element, "none");
    let grey;
    known = { colour, grey: () => (grey ??= canvasOf(element, "grayscale(1)")) };
  } catch {
    // Shown as plain grey.
  }
  decoded.set(source, known);
  return known;
}

function canvasOf(element, filter) {
  const canvas = document.createElement("canvas");
  canvas.width = element.naturalWidth;
  canvas.height = element.naturalHeight;
  const context = canvas.getContext("2d");
  context.filter = filter;
  context.drawImage(element, 0, 0);
  return canvas;
}
