// Bundles src/ into one script, one style sheet and the page around them. Run by `make viewer`.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const here = new URL(".", import.meta.url).pathname;
const out = process.argv[2] ?? `${here}../cam_callbacks/compare/assets`;
const licence = readFileSync(`${here}node_modules/uplot/LICENSE`, "utf8").trim();

// Written into the script, so that a test sees without Node that it was built from these sources.
const sources = ["build.mjs", "package-lock.json", ...readdirSync(`${here}src`).sort().map((name) => `src/${name}`)];
const digest = createHash("sha256");
for (const name of sources) digest.update(`${name}\n`).update(readFileSync(here + name));

const built = `Built from sources ${digest.digest("hex")}.`;
await build({
  entryPoints: [`${here}src/viewer.js`],
  outdir: out,
  bundle: true,
  format: "iife",
  target: "es2022",
  minify: true,
  charset: "ascii",
  legalComments: "none",
  banner: { js: `/*! cam-callbacks viewer, Apache-2.0. ${built} It contains uPlot:\n${licence} */` },
  logLevel: "warning",
});
writeFileSync(`${out}/viewer.html`, readFileSync(`${here}src/viewer.html`));
