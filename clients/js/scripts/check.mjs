// Everything about the SDK that needs no broker: npm run check. Each step says how
// long it took; what a step has to say is printed when it fails. Arguments name
// the steps to run.
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { buildAll, root } from "./build.mjs";
import { aim, limit, measure } from "./size.mjs";

const scratch = mkdtempSync(join(tmpdir(), "tidewire-check-"));

const steps = {
  biome: () => tool("@biomejs/biome/bin/biome", "check", "--error-on-warnings", "."),
  types: () => tool("typescript/bin/tsc", "-p", "tsconfig.test.json"),
  demo,
  fresh,
  served,
  size,
  package: packaged,
  consumer,
  typedoc: () => tool("typedoc/bin/typedoc", "--out", join(scratch, "reference")),
};

/** Runs a program of node_modules; throws what it wrote if it fails. */
function tool(program, ...args) {
  return run(process.execPath, [join(root, "node_modules", program), ...args]);
}

function run(program, args, cwd = root) {
  const env = { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined };
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd, env, encoding: "utf8" });
  if (error) throw error;
  if (status !== 0) throw new Error(`${stdout}${stderr}`);
  return stdout;
}

/** The modules of the demo page have no tools of their own; their types are in comments. */
function demo() {
  const page = join(root, "../demo");
  run(
    process.execPath,
    [join(root, "node_modules/@biomejs/biome/bin/biome"), "check", "--error-on-warnings"],
    page,
  );
  tool("typescript/bin/tsc", "-p", page);
}

function files(directory) {
  if (!existsSync(directory)) return new Map();
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((e) => e.isFile());
  const paths = entries.map((e) => join(e.parentPath, e.name)).sort();
  return new Map(paths.map((path) => [relative(directory, path), readFileSync(path, "utf8")]));
}

/** What is committed is what the sources build. */
async function fresh() {
  await buildAll(scratch);
  const stale = [];
  for (const part of ["dist", "served"]) {
    const have = files(join(root, part));
    const want = files(join(scratch, part));
    for (const path of new Set([...have.keys(), ...want.keys()])) {
      if (have.get(path) !== want.get(path)) stale.push(`clients/js/${part}/${path}`);
    }
  }
  if (stale.length > 0) {
    throw new Error(
      `These differ from what the sources build: ${stale.join(", ")}. Run \`make sdk\` and commit the result.`,
    );
  }
}

/** The bundles load, on a server too, so each finds in client.js what it imports from there. */
async function served() {
  for (const path of files(join(root, "served")).keys()) {
    run(process.execPath, [
      "--input-type=module",
      "-e",
      `await import(${JSON.stringify(href("served", path))})`,
    ]);
  }
}

function href(...path) {
  return pathToFileURL(join(root, ...path)).href;
}

async function size() {
  const { page, all } = await measure();
  if (page > limit) {
    throw new Error(`A page that uses the core takes ${page} bytes of JavaScript (gzip -9), over ${limit}.`);
  }
  return `${page} of at most ${limit} bytes (gzip -9; the aim is ${aim}); ${all} with what it loads when it calls history`;
}

/** The tarball that npm would publish, as bundlers and TypeScript see it. */
function packaged() {
  const tarball = pack();
  tool("publint/src/cli.js", "run", tarball, "--strict");
  tool("@arethetypeswrong/cli/dist/index.js", tarball, "--profile", "esm-only", "--no-definitely-typed");
}

function pack() {
  mkdirSync(join(scratch, "pack"), { recursive: true });
  const args = ["pack", "--json", "--ignore-scripts", "--pack-destination", join(scratch, "pack")];
  const [{ filename }] = JSON.parse(run("npm", args));
  return join(scratch, "pack", filename);
}

/**
 * A program that uses the package compiles under strict settings, without the
 * options and libraries that the SDK itself is compiled with.
 */
function consumer() {
  const program = join(scratch, "consumer");
  const modules = join(program, "node_modules");
  const installed = join(modules, "@tidewire/client");
  mkdirSync(installed, { recursive: true });
  run("tar", ["-xzf", pack(), "-C", installed, "--strip-components=1"]);
  symlinkSync(join(root, "node_modules/@types"), join(modules, "@types"));
  const { exports } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
  const lines = Object.entries(exports)
    .filter(([, target]) => target.types)
    .map(([name], i) => `export * as part${i} from "@tidewire/client${name.slice(1)}";\n`);
  // What has no value may be given as undefined.
  const use = `import { connect } from "@tidewire/client";
    connect("http://localhost", { token: undefined }).publish("a", 1, { id: undefined, signal: undefined });\n`;
  writeFileSync(join(program, "index.mts"), [...lines, use].join(""));
  for (const [module, moduleResolution] of [
    ["nodenext", "nodenext"],
    ["es2022", "bundler"],
  ]) {
    const common = {
      noEmit: true,
      strict: true,
      exactOptionalPropertyTypes: true,
      types: [],
      skipDefaultLibCheck: true,
    };
    const compilerOptions = { ...common, module, moduleResolution, target: "es2022", lib: ["es2022", "dom"] };
    writeFileSync(join(program, "tsconfig.json"), JSON.stringify({ compilerOptions }));
    tool("typescript/bin/tsc", "-p", program);
  }
}

async function main() {
  const wanted = process.argv.slice(2);
  const failed = [];
  for (const [name, step] of Object.entries(steps)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    const begin = performance.now();
    try {
      const said = await step();
      const seconds = ((performance.now() - begin) / 1000).toFixed(1);
      console.log(`ok    ${name} (${seconds} s)${name === "size" ? `: ${said}` : ""}`);
    } catch (error) {
      failed.push(name);
      console.log(`FAIL  ${name}\n${error.message.trimEnd()}\n`);
    }
  }
  return failed.length === 0;
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
