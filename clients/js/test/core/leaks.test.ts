// Nothing is left behind: no timer, no listener, no rejection that nobody handles,
// and no process that does not end.
import { spawn } from "node:child_process";
import { build } from "esbuild";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { open, outcome, pass, settle, start } from "../support/net.js";

const unhandled: unknown[] = [];
const note = (reason: unknown) => unhandled.push(reason);
let theirs: NodeJS.UnhandledRejectionListener[] = [];

beforeEach(() => {
  vi.useFakeTimers();
  unhandled.length = 0;
  theirs = process.listeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection").on("unhandledRejection", note);
});

afterEach(() => {
  process.removeAllListeners("unhandledRejection");
  for (const listener of theirs) process.on("unhandledRejection", listener);
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** Until Node.js has told what it has to tell. */
const told = () => {
  vi.useRealTimers();
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
};

/** A client with one of everything, of which nobody looks at any promise. */
async function busy() {
  const w = await open({ token: () => "t" }, { expiresAt: 1_700_000_600_000_000 });
  const s = w.client.subscribe("a", () => {});
  w.client.subscribe("b");
  w.client.subscribe("c", () => new Promise(() => {}));
  const c = w.client.consume("c", "a", async (m) => {
    void m.extend();
    throw new Error("mine");
  });
  w.client.consume("d", "a", () => {}).close();
  await settle();
  w.peer.say({
    subscribed: { sub: s.state === "asking" ? 1 : 0, position: "pt-0", cursors: [{ offset: 0 }] },
  });
  const numbers = w.peer.take("subscribe").map((m) => m.sub!);
  for (const sub of numbers) w.peer.say({ subscribed: { sub, position: "pt-0", cursors: [{ offset: 0 }] } });
  for (const sub of numbers)
    w.peer.say({
      deliver: {
        sub,
        term: "t",
        through: 1,
        generation: 1,
        attempts: [1],
        records: [{ topic: "a", offset: 1 }],
      },
    });
  await settle();
  return { ...w, s, c };
}

test.each(["close", "refused", "pagehide", "lost"])(
  "nobody needs to look at ready, done, or what was said: %s",
  async (how) => {
    const { client, peer } = await busy();
    if (how === "refused") peer.end(3501);
    if (how === "lost") peer.end();
    if (how === "close") void client.close();
    await pass(10_000);
    void client.close();
    await pass(10_000);
    expect(client.state).toBe("closed");
    client.subscribe("late", () => {});
    client.consume("late", "a", () => {});
    expect(vi.getTimerCount()).toBe(0);
    await told();
    expect(unhandled).toEqual([]);
  },
);

test("ready of a client that never was is nobody's business, either", async () => {
  const { client } = start();
  await client.close();
  await told();
  expect(unhandled).toEqual([]);
  await expect(client.ready).rejects.toMatchObject({ code: "closed" });
});

test("what becomes of a message is somebody's business: a publish that fails and is not looked at is told", async () => {
  const { client } = await open();
  void client.publish("a", 1);
  void client.close({ timeout: 0 });
  await pass(1);
  void client.publish("a", 2);
  await told();
  expect(unhandled).toMatchObject([{ code: "outcome_unknown" }, { code: "closed" }]);
});

test("listeners of the page are taken off", async () => {
  const on = new Map<string, number>();
  const count = (by: number) => (type: string) => on.set(type, (on.get(type) ?? 0) + by);
  vi.stubGlobal("addEventListener", count(1));
  vi.stubGlobal("removeEventListener", count(-1));
  const { client } = await busy();
  expect([...on.values()]).toEqual([1, 1, 1, 1, 1]);
  void client.close({ timeout: 0 });
  await pass(1);
  expect(on.size).toBe(5);
  expect([...on.values()]).toEqual([0, 0, 0, 0, 0]);
});

test("a signal is let go of", async () => {
  const { signal } = new AbortController();
  const [add, remove] = [vi.spyOn(signal, "addEventListener"), vi.spyOn(signal, "removeEventListener")];
  const { client } = await open();
  for (let n = 0; n < 5; n++) await client.subscribe("a", () => {}, { signal }).close();
  for (let n = 0; n < 5; n++) await client.consume("a", "b", () => {}, { signal }).close();
  await settle();
  expect(add.mock.calls.length).toBe(10);
  expect(remove.mock.calls.length).toBe(10);
});

test("sessions come and go, and timers do not add up", async () => {
  const { client, net } = start();
  client.subscribe("a", () => {});
  const counts: number[] = [];
  for (let n = 0; n < 20; n++) {
    await settle();
    net.last.welcome();
    counts.push(vi.getTimerCount());
    net.last.end();
    const peers = net.peers.length;
    while (net.peers.length === peers) await vi.advanceTimersToNextTimerAsync();
  }
  expect(new Set(counts).size).toBe(1);
  expect(await outcome(client.close())).toBe(undefined);
  expect(vi.getTimerCount()).toBe(0);
});

/** Runs a program in Node.js with this SDK and the package ws. */
async function run(program: string): Promise<{ code: number | null; said: string }> {
  const { outputFiles } = await build({
    stdin: {
      contents: `import { connect } from "./src/index.ts"; import { WebSocket, WebSocketServer } from "ws"; ${program}`,
      resolveDir: new URL("../..", import.meta.url).pathname,
    },
    bundle: true,
    format: "cjs",
    platform: "node",
    write: false,
    logLevel: "silent",
  });
  const child = spawn(process.execPath, ["-"], { stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  child.stdout.on("data", (d) => (said += d));
  child.stderr.on("data", (d) => (said += d));
  child.stdin.end(outputFiles[0]!.contents);
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, said })));
}

test("a program in Node.js ends after close, and no missing broker ends it before", {
  timeout: 30_000,
}, async () => {
  vi.useRealTimers();
  const { code, said } = await run(`
    const never = connect("http://127.0.0.1:1", { WebSocket, log: false });
    const waiting = new Promise((resolve) => never.on("state", (s) => s.state === "waiting" && resolve()));
    const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
    server.on("listening", async () => {
      await waiting; // nobody is there, and the program lives on
      const hung = connect("http://127.0.0.1:" + server.address().port, { WebSocket, log: false, timeout: 60_000 });
      hung.subscribe("a", () => {});
      await new Promise((resolve) => server.on("connection", resolve));
      await hung.close();
      await never.close();
      for (const s of server.clients) s.terminate();
      server.close();
      console.log("the end");
    });
  `);
  expect(said).toBe("the end\n");
  expect(code).toBe(0);
});
