// Builds dist/ (what npm gets: one file for each source file, with types) and
// served/ (what the broker serves: one file for each entry, minified, and what an
// entry loads later).
//
//   node scripts/build.mjs [DIRECTORY]    default: the package itself
//
// The same sources give the same bytes, so that a check can tell stale ones.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** What the broker serves under /sdk/. The first one holds the core; the others import it from there. */
const entries = [
  ["client.js", "src/index.ts"],
  ["idb.js", "src/idb/index.ts"],
  ["tabs.js", "src/tabs/index.ts"],
];

/** What esbuild is told for all bundles, those that are measured too. */
export const bundling = {
  bundle: true,
  splitting: true,
  chunkNames: "[name]",
  outdir: "served",
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
  absWorkingDir: root,
};

/** A page that loads two files must not have two cores. */
const oneCore = {
  name: "one-core",
  setup(builder) {
    const core = join(root, "src");
    builder.onResolve({ filter: /^\.{1,2}\// }, ({ path, importer, kind }) => {
      if (kind === "entry-point" || dirname(importer) === core) return undefined;
      const inCore = dirname(resolve(dirname(importer), path)) === core;
      return inCore ? { path: "./client.js", external: true, sideEffects: false } : undefined;
    });
  },
};

/** Bundles what the broker serves into a directory. */
export async function bundle(directory) {
  const { name, version, license } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  for (const [file, entry] of entries.filter(([, entry]) => existsSync(join(root, entry)))) {
    await build({
      ...bundling,
      plugins: file === "client.js" ? [] : [oneCore],
      entryPoints: { [file.replace(".js", "")]: entry },
      outdir: directory,
      banner: { js: `// ${name} ${version}, ${license}` },
    });
  }
}

/** Builds dist and served into a directory. */
export async function buildAll(directory) {
  for (const part of ["dist", "served"]) rmSync(join(directory, part), { recursive: true, force: true });
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  execFileSync(process.execPath, [tsc, "-p", root, "--outDir", join(directory, "dist")], {
    stdio: "inherit",
  });
  await bundle(join(directory, "served"));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await buildAll(resolve(process.argv[2] ?? root)).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
