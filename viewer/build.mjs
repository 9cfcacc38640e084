// Bundles src/ into one script, one style sheet and the page around them. Run by `make viewer`.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const out = process.argv[2] ?? new URL("../cam_callbacks/compare/assets/", import.meta.url).pathname;
const licence = readFileSync(new URL("node_modules/uplot/LICENSE", import.meta.url), "utf8").trim();

await build({
  entryPoints: [new URL("src/viewer.js", import.meta.url).pathname],
  outdir: out,
  bundle: true,
  format: "iife",
  target: "es2022",
  minify: true,
  charset: "ascii",
  legalComments: "none",
  banner: { js: `/*! cam-callbacks viewer, Apache-2.0. It contains uPlot:\n${licence} */` },
  logLevel: "warning",
});
writeFileSync(`${out}/viewer.html`, readFileSync(new URL("src/viewer.html", import.meta.url)));
