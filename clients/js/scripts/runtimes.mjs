// Runs test/runtimes/suite.ts in each runtime in turn, against a broker of its own:
//
//   node scripts/runtimes.mjs [node-ws] [node22] [deno] [bun]    default: all
//
// The suite meets the package as it is installed: package.json and dist, freshly
// built. `node-ws` is the Node.js of this machine with the WebSocket of the package
// ws, as Node.js 20 needs it; the others come from npm, pinned in test/runtimes.
import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";
import { buildAll, root } from "./build.mjs";

/** For a runtime that hangs, in milliseconds; the tests have limits of their own. */
const limits = { suite: 90_000, leave: 30_000 };

/** Inside of node_modules, so that ws is found from there. */
const scratch = join(root, "node_modules/.tidewire-runtimes");
const suite = join(scratch, "suite.test.mjs");
const leave = join(scratch, "leave.mjs");

const underNode = { suite: ["--test", "--test-reporter=spec", suite], leave: [leave] };
const mayDeno = ["--allow-net", "--allow-env", "--allow-read"];

const runtimes = {
  "node-ws": { program: () => process.execPath, ...underNode, env: { TIDEWIRE_WS: "1" } },
  node22: { program: () => installed("", /^node-/, "bin/node"), ...underNode },
  deno: {
    program: () => installed("@deno", /./, "deno"),
    suite: ["test", "--no-check", ...mayDeno, suite],
    leave: ["run", "--no-check", ...mayDeno, leave],
  },
  bun: {
    program: () => installed("@oven", /^bun-/, "bin/bun"),
    suite: ["test", "--timeout=60000", suite],
    leave: [leave],
  },
};

/** Finds the program that npm has installed for this machine. */
function installed(scope, name, program) {
  const directory = join(root, "test/runtimes/node_modules", scope);
  const packages = existsSync(directory) ? readdirSync(directory).filter((entry) => name.test(entry)) : [];
  const works = (file) => spawnSync(file, ["--version"]).status === 0;
  return packages.map((entry) => join(directory, entry, program)).find(works);
}

async function prepare() {
  rmSync(scratch, { recursive: true, force: true });
  const client = join(scratch, "node_modules/@tidewire/client");
  mkdirSync(client, { recursive: true });
  writeFileSync(join(scratch, "package.json"), '{ "private": true, "type": "module" }\n');
  copyFileSync(join(root, "package.json"), join(client, "package.json"));
  await buildAll(client);
  const options = { absWorkingDir: root, bundle: true, format: "esm", target: "es2022", logLevel: "warning" };
  for (const [entry, outfile] of Object.entries({ "suite.ts": suite, "leave.ts": leave })) {
    const entryPoints = [join("test/runtimes", entry)];
    await build({ ...options, entryPoints, outfile, platform: "node", external: ["ws"] });
  }
  const support = join(scratch, "support.mjs");
  const contents = 'export * from "./test/support/binary.js"; export * from "./test/support/broker.js";';
  await build({ ...options, stdin: { contents, resolveDir: root }, outfile: support, platform: "node" });
  return import(pathToFileURL(support).href);
}

/** Lets a suite kill and restart its broker. */
async function control(broker) {
  const server = createServer(async (request, response) => {
    try {
      if (request.url === "/kill") await broker.kill();
      else await broker.restart();
      response.writeHead(204).end();
    } catch (error) {
      response.writeHead(500).end(String(error));
    }
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close: () => server.close().closeAllConnections(),
  };
}

/** Runs the suite, and then the program that is to end by itself. */
async function run(program, runtime, startBroker) {
  const broker = await startBroker();
  const controls = await control(broker);
  const { TIDEWIRE_WS: _, ...outer } = process.env;
  const addresses = { TIDEWIRE_URL: broker.url, TIDEWIRE_CONTROL: controls.url };
  const env = { ...outer, ...runtime.env, ...addresses, NO_COLOR: "1" };
  let output = "";
  const ended = async (what) => {
    const child = spawn(program, runtime[what], { cwd: scratch, env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        output += text;
      });
    }
    const timer = setTimeout(() => {
      output += `test/runtimes/${what}.ts did not end within ${limits[what] / 1000} s.\n`;
      child.kill("SIGKILL");
    }, limits[what]);
    const status = await new Promise((closed) => child.on("close", closed));
    clearTimeout(timer);
    return status === 0;
  };
  const passed = (await ended("suite")) && (await ended("leave"));
  controls.close();
  await broker.stop();
  return { passed, output, logs: broker.logs };
}

/** How many tests ran to their end, and how many were skipped, by the last lines of each runtime. */
function count(output) {
  const last = (...patterns) => Number(patterns.map((p) => output.match(p)?.[1]).find(Boolean) ?? 0);
  return {
    tests: last(/^ℹ pass (\d+)/m, /\| (\d+) passed/, /^ *(\d+) pass$/m),
    skipped: last(/^ℹ skipped (\d+)/m, /\| (\d+) ignored/, /^ *(\d+) skip$/m),
  };
}

async function main(names) {
  const { buildBroker, startBroker } = await prepare();
  const removeBroker = buildBroker(root);
  const ran = new Set();
  let ok = true;
  const fail = (line) => {
    ok = false;
    console.log(line);
  };
  for (const name of names) {
    const program = runtimes[name].program();
    if (!program) {
      const line = `${name}: npm has no package of it for this machine, or npm ci was not run in clients/js/test/runtimes`;
      if (process.env.CI) fail(`FAIL  ${line}`);
      else console.log(`skip  ${line}`);
      continue;
    }
    const begin = performance.now();
    const { passed, output, logs } = await run(program, runtimes[name], startBroker);
    const { tests, skipped } = count(output);
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    ran.add(tests);
    if (!passed || tests === 0 || skipped > 0) {
      fail(`FAIL  ${name} (${skipped} skipped)\n${output}\nThe broker wrote:\n${logs}`);
    } else console.log(`ok    ${name} (${seconds} s): ${tests} tests`);
  }
  if (ok && ran.size > 1) fail(`The runtimes have not run the same tests: ${[...ran].join(", ")} passed.`);
  removeBroker();
  rmSync(scratch, { recursive: true, force: true });
  return ok;
}

const names = process.argv.slice(2);
const unknown = names.find((name) => !runtimes[name]);
if (unknown) throw new Error(`no runtime ${unknown}: there are ${Object.keys(runtimes).join(", ")}`);
process.exitCode = (await main(names.length > 0 ? names : Object.keys(runtimes))) ? 0 : 1;
