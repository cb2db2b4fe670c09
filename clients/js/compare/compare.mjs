// Bundles an equal small use of each client the same way, and prints what a page
// must load: minified, as gzip -9 leaves it, as brotli leaves it.
//
//   npm ci && npm run compare               prints the table
//   npm run compare -- --write              writes it into ../README.md, with features.md
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

/** The file of uses/, what it is called, and the packages that it is made of. */
const uses = [
  ["tidewire", "**Tidewire**", []],
  ["tidewire-all", "Tidewire, with resume, consumers and acks", []],
  ["socket.io", "socket.io-client", ["socket.io-client"]],
  ["centrifuge", "centrifuge, JSON", ["centrifuge"]],
  ["centrifuge-protobuf", "centrifuge, Protobuf", ["centrifuge"]],
  ["nats", "@nats-io/nats-core", ["@nats-io/nats-core"]],
  ["nats-jetstream", "@nats-io/nats-core and jetstream", ["@nats-io/nats-core"]],
  ["ably-modular", "ably/modular, two plugins", ["ably"]],
  ["ably", "ably", ["ably"]],
  ["mqtt", "mqtt (MQTT.js)", ["mqtt"]],
];

const version = (name) =>
  JSON.parse(readFileSync(join(here, "node_modules", name, "package.json"), "utf8")).version;
const number = (n) => n.toLocaleString("en-US");

async function measure([file, title, packages]) {
  const { outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: [`uses/${file}.js`],
    write: false,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    platform: "browser",
    charset: "utf8",
    legalComments: "none",
    define: { "process.env.NODE_ENV": '"production"' },
    alias: { "@tidewire/client": "../src/index.ts" },
    logLevel: "warning",
  });
  const { contents } = outputFiles[0];
  const gzip = gzipSync(contents, { level: 9 }).length;
  const brotli = brotliCompressSync(contents, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }).length;
  const versions =
    packages.map(version).join(", ") || JSON.parse(readFileSync(join(here, "../package.json"))).version;
  return `| ${title} | ${versions} | ${number(contents.length)} | ${number(gzip)} | ${number(brotli)} |`;
}

async function table() {
  const rows = [];
  for (const use of uses) rows.push(await measure(use));
  return [
    "| connect, publish, subscribe | version | minified | gzip -9 | brotli |",
    "|---|---|---:|---:|---:|",
    ...rows,
  ].join("\n");
}

const sizes = await table();
console.log(sizes);
if (process.argv.includes("--write")) {
  const path = join(here, "../README.md");
  const day = new Date().toISOString().slice(0, 10);
  const bundler = `esbuild ${version("esbuild")}`;
  const text = [
    `Bytes of JavaScript for a page that connects, publishes and subscribes, bundled by ${bundler}; measured on ${day} with [compare/](compare).`,
    sizes,
    readFileSync(join(here, "features.md"), "utf8").trim(),
  ].join("\n\n");
  const marked = /(<!-- compare: begin.*?-->\n).*?(<!-- compare: end -->)/s;
  writeFileSync(
    path,
    readFileSync(path, "utf8").replace(marked, (_, begin, end) => `${begin}${text}\n${end}`),
  );
}
