// Measures the SDK in a real Chromium, all rows in one page and one run, and prints
// ratios. Tidewire is the real broker; the others are fed by feed.mjs.
//
//   ./run [-full] [-write]        -full: more turns; -write: results.md, too
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import WebSocket from "ws";
import { single, startFeed } from "./feed.mjs";
import { print, row, said, say, turns } from "./table.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const full = process.argv.includes("-full");
const rounds = full ? 15 : 7;
const messages = 200_000;
const missed = 10_000;
const slowSeconds = full ? 30 : 12;
const heads = ["beside", "Tidewire", "the other", "ratio", "aim", ""];
const flags = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
];

const scratch = mkdtempSync(join(tmpdir(), "tidewire-bench-"));
const closing = [() => rmSync(scratch, { recursive: true, force: true })];

async function startBroker() {
  const binary = join(scratch, "tidewire");
  execFileSync("go", ["build", "-o", binary, "./cmd/tidewire"], {
    cwd: join(here, "../../.."),
    stdio: "inherit",
  });
  const args = [
    "serve",
    "--dev",
    "--listen",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
    "--data",
    join(scratch, "data"),
  ];
  const child = spawn(binary, args, { stdio: ["ignore", "pipe", "pipe"] });
  closing.unshift(async () => {
    child.kill();
    await once(child, "exit");
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data) => {
      said += data;
    });
  }
  for (;;) {
    const url = /listens on (\S+) /.exec(said)?.[1];
    if (url && (await fetch(`${url}/readyz`).catch(() => undefined))?.ok) return { url, pid: child.pid };
    if (child.exitCode !== null) throw new Error(said);
    await new Promise((wake) => setTimeout(wake, 50));
  }
}

/** The SDK for this process, and for the page. */
async function bundle(entry) {
  const file = join(scratch, `${entry.replaceAll(/\W/g, "-")}.mjs`);
  const options = {
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    platform: "browser",
    outfile: file,
  };
  await build({ ...options, absWorkingDir: here, entryPoints: [entry] });
  return file;
}

/** Publishes as pages do: each message has an id. */
async function publish(client, topic, payloads) {
  for (let i = 0; i < payloads.length; i += 1000) {
    const part = payloads.slice(i, i + 1000);
    await Promise.all(part.map((p) => client.publish(topic, p, { contentType: "application/json" })));
  }
}

/** The frames in which the broker delivers what is stored. */
async function record(connect, url, filter, from, n) {
  const frames = [];
  class Recorder extends WebSocket {
    constructor(address, protocols) {
      super(address, protocols);
      this.on("message", (data) => frames.push(Buffer.from(data)));
    }
  }
  const client = connect(url, { WebSocket: Recorder });
  let count = 0;
  await new Promise((done) => client.subscribe(filter, () => ++count === n && done(), { from }));
  await client.close();
  return frames.filter((f) => f.length > 200);
}

const payload = (n) =>
  Buffer.from(JSON.stringify(`message ${String(n).padStart(10, "0")} ${"x".repeat(43)}`));

/** Memory of processes, in MiB, what they share counted in parts. */
function memory(...pids) {
  const sizes = pids.map((pid) =>
    Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))[1]),
  );
  return sizes.reduce((a, b) => a + b, 0) / 1024;
}

async function main() {
  const broker = await startBroker();
  const { connect } = await import(pathToFileURL(await bundle("../src/index.ts")).href);
  const publisher = connect(broker.url, { WebSocket, outbox: { bytes: 64 << 20 } });
  closing.unshift(() => publisher.close());
  const payloads = Array.from({ length: messages }, (_, n) => payload(n));
  await publish(publisher, "a.b", payloads);
  const { position } = await publisher.publish("missed.a", "before");
  await publish(publisher, "missed.a", payloads.slice(0, missed));
  const frames = await record(connect, broker.url, "a.*", "earliest", messages);
  const bytes = (await record(connect, broker.url, "missed.*", position, missed)).reduce(
    (sum, f) => sum + f.length,
    0,
  );
  const feed = await startFeed({ payloads, frames });
  closing.unshift(() => feed.close());
  const ws = feed.url.replace("http", "ws");

  const executablePath = process.env.CHROME_PATH;
  const browser = await chromium.launch({ executablePath, headless: true, args: flags });
  closing.unshift(() => browser.close());
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(error));
  await page.goto(feed.url);
  await page.addScriptTag({ type: "module", content: readFileSync(await bundle("page.js"), "utf8") });
  await page.waitForFunction("window.turns");
  const cdp = await browser.newBrowserCDPSession();
  const turn = (name, ...args) => page.evaluate(([f, given]) => window.turns[f](...given), [name, args]);
  const thread = await threadClock(page);
  const rate =
    (n, name, ...args) =>
    async () => {
      const before = await thread();
      const ms = await turn(name, ...args);
      return { clock: n / ms / 1000, thread: n / ((await thread()) - before) / 1000 };
    };

  const [cpu] = cpus();
  say(
    `Chromium ${browser.version()}, Node.js ${process.version}, ${cpus().length} cores (${cpu.model}), load ${load.toFixed(1)}`,
  );
  say(`${rounds} turns each, one after the other; median (least to most)`);
  // Memory first: what the others leave behind in the page would hide it.
  const oks = [
    await slowHandler(turn, cdp, publisher, broker, ws),
    await small(rate, ws, broker.url, frames),
    await resumes(turn, broker.url, feed.url, position, bytes),
  ];
  return oks.every(Boolean);
}

/** Gives what the page's thread has worked so far, in milliseconds of processor time: what others do on this machine matters little to it. */
async function threadClock(page) {
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable", { timeDomain: "threadTicks" });
  return async () => {
    const { metrics } = await session.send("Performance.getMetrics");
    return 1000 * metrics.find((m) => m.name === "TaskDuration").value;
  };
}

async function small(rate, ws, url, frames) {
  const all = await turns(rounds, {
    ours: rate(messages, "tidewire", url, messages),
    json: rate(messages, "tidewireJSON", url, messages),
    one: rate(single, "bare", `${ws}/bare/one`),
    same: rate(messages, "bare", `${ws}/bare/tidewire`),
    centrifuge: rate(messages, "centrifuge", `${ws}/centrifuge`, messages),
    centrifugeProtobuf: rate(messages, "centrifugeProtobuf", `${ws}/centrifuge-protobuf`, messages),
    nats: rate(messages, "nats", `${ws}/nats`, messages),
    centrifugeLarge: rate(messages, "centrifuge", `${ws}/centrifuge/large`, messages),
    centrifugeProtobufLarge: rate(
      messages,
      "centrifugeProtobuf",
      `${ws}/centrifuge-protobuf/large`,
      messages,
    ),
    natsLarge: rate(messages, "nats", `${ws}/nats/large`, messages),
  });
  const size = Math.round(messages / frames.length);
  const table = (title, which) => {
    const beside = (name, ours, other, aim) =>
      row(
        name,
        all[ours].map((t) => t[which]),
        all[other].map((t) => t[which]),
        { unit: " M/s", ...aim },
      );
    return print(title, heads, [
      beside("bare onmessage that copies, a frame for each message", "ours", "one", { least: 0.5 }),
      beside("bare onmessage that copies, the same frames", "ours", "same", { least: 0.5 }),
      beside("centrifuge, JSON, 16 in a frame as Centrifugo does", "json", "centrifuge", { least: 2 }),
      beside("centrifuge, Protobuf, 16 in a frame", "ours", "centrifugeProtobuf", { least: 2 }),
      beside("nats-core, 4,096-byte frames as NATS does", "ours", "nats", { least: 2 }),
      beside("centrifuge, JSON, if it had large frames", "json", "centrifugeLarge"),
      beside("centrifuge, Protobuf, if it had large frames", "ours", "centrifugeProtobufLarge"),
      beside("nats-core, if it had large frames", "ours", "natsLarge"),
    ]);
  };
  const what = `${messages} messages of 64 bytes, decoded and handed to a callback; the broker sends about ${size} of them in a frame`;
  const oks = [
    table(`${what}. By the clock:`, "clock"),
    table("The same in a second of processor time of the page's thread:", "thread"),
  ];
  return oks.every(Boolean);
}

async function resumes(turn, url, feed, position, bytes) {
  const all = await turns(2 * rounds, {
    ours: () => turn("resume", url, position, missed),
    fetched: () => turn("download", `${feed}/?bytes=${bytes}`),
  });
  return print(
    `${missed} messages that were missed, ${(bytes / 1e6).toFixed(2)} MB, from connect() to the last callback`,
    heads,
    [row("fetch of as many bytes", all.ours, all.fetched, { unit: " ms", most: 3 })],
  );
}

/** Memory while something runs: how far above the beginning, at most, in MiB. */
async function growth(cdp, broker, during) {
  const { processInfo } = await cdp.send("SystemInfo.getProcessInfo");
  const pids = processInfo.map((p) => p.id);
  const begin = [memory(...pids), memory(broker.pid)];
  const most = [0, 0];
  const look = () => {
    most[0] = Math.max(most[0], memory(...pids) - begin[0]);
    most[1] = Math.max(most[1], memory(broker.pid) - begin[1]);
  };
  const timer = setInterval(look, 250);
  const result = await during();
  look();
  clearInterval(timer);
  return { tab: most[0], broker: most[1], result };
}

async function slowHandler(turn, cdp, publisher, broker, ws) {
  const kib = new Uint8Array(1024).fill(120);
  let published = 0;
  const flood = async (work) => {
    let on = true;
    const ended = work.finally(() => {
      on = false;
    });
    while (on) {
      await Promise.all(Array.from({ length: 500 }, () => publisher.publish("slow.a", kib)));
      published += 500;
    }
    return ended;
  };
  const measure = async (work) => {
    published = 0;
    const seen = await growth(cdp, broker, () => flood(work()));
    return { ...seen, rate: Math.round(published / slowSeconds) };
  };
  const rest = () => new Promise((wake) => setTimeout(wake, 1000 * slowSeconds));
  await measure(rest); // the window of the broker fills
  const without = await measure(rest);
  const ours = await measure(() => turn("slow", broker.url, slowSeconds));
  const queued = await measure(() =>
    turn("queued", `${ws}/steady?bytes=1024&rate=${ours.rate}`, slowSeconds),
  );
  const line = (name, m, most) => {
    const met = most === undefined || (m.tab - without.tab <= most && m.broker - without.broker <= most);
    const cells = [
      name,
      `${m.rate}/s`,
      `${m.result ?? "-"}`,
      `${m.tab.toFixed(1)} MiB`,
      `${m.broker.toFixed(1)} MiB`,
    ];
    return {
      cells: [
        ...cells,
        most === undefined ? "" : `<= ${most} more`,
        most === undefined ? "" : met ? "ok" : "MISSED",
      ],
      met,
    };
  };
  return print(
    `A handler that takes 5 ms, for ${slowSeconds} seconds, while 1-KiB messages are published as fast as one publisher can`,
    ["", "published", "handled", "browser grows by", "broker grows by", "aim", ""],
    [
      line("nobody subscribes", without),
      line("Tidewire", ours, 32),
      line("bare onmessage with a queue, the same rate", queued),
    ],
  );
}

const [load] = loadavg();

/** Keeps what was measured, for who cannot run it. */
function write() {
  const day = new Date().toISOString().slice(0, 10);
  const peers = ["centrifuge", "@nats-io/nats-core"].map((name) => {
    const { version } = JSON.parse(readFileSync(join(here, "node_modules", name, "package.json"), "utf8"));
    return `${name} ${version}`;
  });
  const busy =
    load > cpus().length
      ? ` The machine was busy with other things (load ${load.toFixed(0)}), so trust the second table of messages more than the clock.`
      : "";
  const text = `# Speed of the browser SDK

Written by \`clients/js/bench/run -write\` on ${day}, beside ${peers.join(" and ")}. All rows are of one page and one run, and take turns. Tidewire is the real broker on disk, with its ids, positions and credit; the others are fed by a small server ([feed.mjs](feed.mjs)) that has everything ready and only writes, in frames of the size that their real servers make. So the clock says what a page gets, with two programs beside the browser on few cores; the processor time of the page's thread says what the client costs. The last column says whether the aim is met.${busy}

\`\`\`
${said.join("\n")}
\`\`\`
`;
  writeFileSync(join(here, "results.md"), text);
}

try {
  process.exitCode = (await main()) ? 0 : 1;
  if (process.argv.includes("-write")) write();
} finally {
  for (const close of closing) await close();
}
