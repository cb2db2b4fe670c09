// Numbers on the wire have 32 bits, and a session may last for years. The clock of
// the SDK's counters is set forward where it is built: nothing else is changed.
import { build } from "esbuild";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Net, settle } from "../support/net.js";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

async function old() {
  let changed = 0;
  const { outputFiles } = await build({
    entryPoints: [new URL("../../src/index.ts", import.meta.url).pathname],
    bundle: true,
    format: "esm",
    write: false,
    plugins: [
      {
        name: "old",
        setup({ onLoad }) {
          onLoad({ filter: /(outbox|consumer)\.ts$/ }, async ({ path }) => {
            const { readFile } = await import("node:fs/promises");
            const text = await readFile(path, "utf8");
            const contents = text.replace("#ref = 0;", "#ref = 2 ** 32 - 3;");
            if (contents !== text) changed++;
            return { contents, loader: "ts" };
          });
        },
      },
    ],
  });
  expect(changed, "the counters have other names now: tell this test").toBe(2);
  const source = Buffer.from(outputFiles[0]!.contents).toString("base64");
  return (await import(
    /* @vite-ignore */ `data:text/javascript;base64,${source}`
  )) as typeof import("../../src/index.js");
}

test("numbers of requests begin anew below 2^32, and never with 0", async () => {
  vi.useRealTimers();
  const { connect } = await old();
  vi.useFakeTimers();
  const net = new Net();
  const client = connect("http://a", { WebSocket: net.WebSocket, log: false });
  client.consume("c", "a", () => {});
  await settle();
  const peer = net.last.welcome();
  const refs: number[] = [];
  for (let n = 0; n < 4; n++) {
    const done = client.publish("a", n);
    const ref = peer.take("publish")[0]!.ref!;
    peer.say({ published: { term: "t", results: [{ ref, offset: 1 }] } });
    expect((await done).stored).toBe(true);
    refs.push(ref);
  }
  expect(refs).toEqual([2 ** 32 - 2, 2 ** 32 - 1, 1, 2]);
  peer.say({ subscribed: { sub: 1 } });
  const records = [1, 2, 3, 4].map((offset) => ({ topic: "a", offset }));
  peer.say({ deliver: { sub: 1, term: "t", generation: 1, attempts: [1, 1, 1, 1], records } });
  await settle();
  expect(peer.take("ack").map((a) => a.ref)).toEqual([2 ** 32 - 2, 2 ** 32 - 1, 1, 2]);
});

test("numbers of subscriptions begin anew with each session", async () => {
  const { start } = await import("../support/net.js");
  const { net, client } = start();
  client.subscribe("a", () => {});
  for (let n = 0; n < 3; n++) {
    await settle();
    net.last.open();
    expect(net.last.take("connect")[0]?.subscriptions?.[0]?.sub).toBe(1);
    net.last.welcome().end();
    const count = net.peers.length;
    while (net.peers.length === count) await vi.advanceTimersToNextTimerAsync();
  }
});
