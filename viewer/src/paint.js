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
function between(cells, size, smooth) {
  const key = `${cells} ${size} ${smooth}`;
  if (!positions.has(key)) {
    const first = new Int32Array(size);
    const second = new Int32Array(size);
    const share = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      const centre = ((i + 0.5) * cells) / size;
      const at = smooth ? Math.min(Math.max(centre - 0.5, 0), cells - 1) : Math.floor(centre);
      first[i] = Math.floor(at);
      second[i] = Math.min(first[i] + 1, cells - 1);
      share[i] = at - first[i];
    }
    if (positions.size > 400) positions.clear();
    positions.set(key, { first, second, share });
  }
  return positions.get(key);
}

/** How much of a level's colour is seen, as a share of the opacity: cold cells stay the photograph. */
export const FADES = {
  no: () => 1,
  low: (level) => level / 255,
  middle: (level) => Math.abs(level - 127.5) / 127.5, // of a difference, whose middle is no change
};

/**
 * Of each level what is left of the picture in 1/256, and the colour's part: red and blue in one word and green in another,
 * with half a unit, to round.
 */
const weighted = new WeakMap();
function weigh(colours, opacity, fades) {
  const known = weighted.get(colours);
  if (known?.opacity === opacity && known.fades === fades) return known;
  const parts = { opacity, fades, words: new Int32Array(1024) }; // four a level, so that they are read together
  for (let level = 0; level < 256; level++) {
    const alpha = Math.round(opacity * FADES[fades](level) * 256);
    const [red, green, blue] = colours.subarray(3 * level, 3 * level + 3);
    parts.words[4 * level] = 256 - alpha;
    parts.words[4 * level + 1] = Math.imul(red | (blue << 16), alpha) + 0x800080;
    parts.words[4 * level + 2] = Math.imul(green << 8, alpha) + 0x8000;
  }
  weighted.set(colours, parts);
  return parts;
}

/**
 * Draw a picture and, over it, a map: (1 − alpha) × picture + alpha × colour; alpha is the opacity times the share of the level.
 * @param canvas its width and height are the size in pixels
 * @param picture RGBA bytes of that size, opaque
 * @param map { levels, grid, colours (from `table`), opacity, fades (of `FADES`), cells }, or null for the picture alone
 */
export function overlay(canvas, picture, map) {
  const { width, height } = canvas;
  const drawn = scratch(width, height);
  if (map) blend(new Uint32Array(drawn.data.buffer), new Uint32Array(picture.buffer), width, height, map);
  else drawn.data.set(picture);
  brush(canvas).putImageData(drawn, 0, 0);
}

/** Pixels to draw into before they are put on a canvas: the same for all panels of a size, since a step draws dozens. */
const sheets = new Map();
function scratch(width, height) {
  const key = `${width} ${height}`;
  if (sheets.size > 8) sheets.clear();
  if (!sheets.has(key)) sheets.set(key, new ImageData(width, height));
  return sheets.get(key);
}

function blend(out, under, width, height, { levels, grid, colours, opacity, fades = "no", cells }) {
  const { words } = weigh(colours, opacity, fades);
  const across = between(grid[1], width, !cells);
  const down = between(grid[0], height, !cells);
  const row = new Float32Array(grid[1]); // levels of this row of pixels, in the columns of the grid
  for (let y = 0, i = 0; y < height; y++) {
    const above = down.first[y] * grid[1];
    const below = down.second[y] * grid[1];
    for (let x = 0; x < row.length; x++) row[x] = levels[above + x] + (levels[below + x] - levels[above + x]) * down.share[y] + 0.5;
    for (let x = 0; x < width; x++, i++) {
      const left = row[across.first[x]];
      const at = ((left + (row[across.second[x]] - left) * across.share[x]) | 0) << 2;
      const pixel = under[i];
      const rest = words[at];
      out[i] = 0xff000000
        | (((Math.imul(pixel & 0xff00ff, rest) + words[at + 1]) >>> 8) & 0xff00ff)
        | (((Math.imul(pixel & 0xff00, rest) + words[at + 2]) >>> 8) & 0xff00);
    }
  }
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
