// A map on its picture: the same interpolation, colours and blend as cam_engine.render.overlay.

const DIVERGING = [ // ColorBrewer's RdBu without its ends, low to high; its middle is neutral
  [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [247, 247, 247],
  [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43],
];

const TARGET = "rgb(92,255,157)";
const NUISANCE = "rgb(64,200,255)";
const CASING = "rgba(16,18,20,.5)";

/** RGB bytes of 256 levels, by the function that gives them; computed once. */
const known = new Map();
export function table(bytes) {
  if (!known.has(bytes)) known.set(bytes, Uint8Array.from(bytes()));
  return known.get(bytes);
}

export function divergingBytes() {
  const rgb = [];
  for (let level = 0; level < 256; level++) {
    const at = (level / 255) * (DIVERGING.length - 1);
    const low = Math.min(Math.floor(at), DIVERGING.length - 2);
    for (let c = 0; c < 3; c++) rgb.push(Math.round(DIVERGING[low][c] + (at - low) * (DIVERGING[low + 1][c] - DIVERGING[low][c])));
  }
  return rgb;
}

/** For each of `size` pixels: the two cells that it lies between, and how far it is from the first (half-pixel centres). */
const positions = new Map();
function between(cells, size) {
  const key = `${cells} ${size}`;
  if (!positions.has(key)) {
    const first = new Int32Array(size);
    const second = new Int32Array(size);
    const share = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      const at = Math.min(Math.max(((i + 0.5) * cells) / size - 0.5, 0), cells - 1);
      first[i] = Math.floor(at);
      second[i] = Math.min(first[i] + 1, cells - 1);
      share[i] = at - first[i];
    }
    if (positions.size > 400) positions.clear();
    positions.set(key, { first, second, share });
  }
  return positions.get(key);
}

/** Levels (0 to 255) of a grid h × w, brought to W × H pixels: one whole level for each. */
let wide = new Uint8Array(0);
function enlarge(levels, [h, w], W, H, cells) {
  if (wide.length < W * H) wide = new Uint8Array(W * H);
  if (cells) {
    for (let y = 0, i = 0; y < H; y++) {
      const row = Math.floor(((y + 0.5) * h) / H) * w;
      for (let x = 0; x < W; x++) wide[i++] = levels[row + Math.floor(((x + 0.5) * w) / W)] + 0.5;
    }
    return wide;
  }
  const across = between(w, W);
  const down = between(h, H);
  const row = new Float32Array(w);
  for (let y = 0, i = 0; y < H; y++) {
    const above = down.first[y] * w;
    const below = down.second[y] * w;
    const part = down.share[y];
    for (let x = 0; x < w; x++) row[x] = levels[above + x] + (levels[below + x] - levels[above + x]) * part + 0.5;
    for (let x = 0; x < W; x++) {
      const left = row[across.first[x]];
      wide[i++] = left + (row[across.second[x]] - left) * across.share[x];
    }
  }
  return wide;
}

/** Each colour's part of the blend, alpha × colour, and each grey level's, (1 − alpha) × level. */
const blends = new Map();
function blend(colours, alpha) {
  const key = `${alpha}`;
  if (!blends.has(colours)) blends.set(colours, new Map());
  const of = blends.get(colours);
  if (!of.has(key)) {
    if (of.size > 30) of.clear();
    of.set(key, {
      over: Float32Array.from(colours, (value) => value * alpha + 0.5),
      under: Float32Array.from({ length: 256 }, (_, value) => value * (1 - alpha)),
    });
  }
  return of.get(key);
}

/**
 * Draw a picture and, over it, a map: (1 − alpha) × picture + alpha × colour.
 * @param canvas its width and height are the size in pixels
 * @param picture RGBA bytes of that size
 * @param map { levels, grid, colours (from `table`), opacity, cells }, or null for the picture alone
 */
export function overlay(canvas, picture, map) {
  const { width, height } = canvas;
  const drawn = new ImageData(width, height);
  const out = drawn.data;
  out.set(picture);
  if (map) {
    const levels = enlarge(map.levels, map.grid, width, height, map.cells);
    const { over, under } = blend(map.colours, map.opacity);
    for (let i = 0, at = 0; at < out.length; i++, at += 4) {
      const level = 3 * levels[i];
      out[at] = under[out[at]] + over[level] | 0;
      out[at + 1] = under[out[at + 1]] + over[level + 1] | 0;
      out[at + 2] = under[out[at + 2]] + over[level + 2] | 0;
    }
  }
  brush(canvas).putImageData(drawn, 0, 0);
}

/** Every canvas here is filled pixel by pixel, which is fastest in memory. */
const brush = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

/** Regions of a picture of `size` [width, height] as lines on a canvas of their own: solid the target, dashed the suspected. */
export function outlines(regions, image, size, width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const [sx, sy] = [width / size[0], height / size[1]];
  for (const [name, colour, dash] of [["nuisance", NUISANCE, [4, 3]], ["masks", TARGET, []]]) {
    const path = new Path2D();
    for (const points of regions[name]?.[image] ?? []) {
      for (let i = 0; i < points.length; i += 2) path.lineTo((points[i] + 0.5) * sx, (points[i + 1] + 0.5) * sy);
      path.closePath();
    }
    stroke(context, path, CASING, 3, []);
    stroke(context, path, colour, 1.25, dash);
  }
  return canvas;
}

/** Lay a canvas of the same size over another. */
export const lay = (canvas, above) => brush(canvas).drawImage(above, 0, 0);

/** Borders of the cells for which `isIn(cell)` holds, where their neighbours do not. */
export function outlineCells(canvas, [h, w], isIn, colour) {
  const [sx, sy] = [canvas.width / w, canvas.height / h];
  const path = new Path2D();
  const line = (x1, y1, x2, y2) => (path.moveTo(x1 * sx, y1 * sy), path.lineTo(x2 * sx, y2 * sy));
  const at = (y, x) => y >= 0 && x >= 0 && y < h && x < w && isIn(y * w + x);
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      if (!at(y, x)) continue;
      if (!at(y - 1, x)) line(x, y, x + 1, y);
      if (!at(y + 1, x)) line(x, y + 1, x + 1, y + 1);
      if (!at(y, x - 1)) line(x, y, x, y + 1);
      if (!at(y, x + 1)) line(x + 1, y, x + 1, y + 1);
    }
  const context = brush(canvas);
  stroke(context, path, "rgba(255,255,255,.9)", 4, []);
  stroke(context, path, colour, 2, []);
}

/** A few words on a dark label at the lower left. */
export function label(canvas, text) {
  const context = brush(canvas);
  const size = Math.max(9, Math.min(13, canvas.width / 9));
  context.font = `${size}px system-ui, sans-serif`;
  const width = context.measureText(text).width + 8;
  context.fillStyle = "rgba(16,18,20,.8)";
  context.fillRect(3, canvas.height - size - 10, width, size + 7);
  context.fillStyle = "#fff";
  context.fillText(text, 7, canvas.height - 7);
}

function stroke(context, path, colour, width, dash) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.stroke(path);
}
