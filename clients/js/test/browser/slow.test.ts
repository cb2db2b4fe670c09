import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { type Broker, startBroker } from "../support/broker.js";
import { inBrowser, launchChromium, script, startSite } from "../support/chromium.js";

const size = 1024;
const batch = 1000;
const batches = 40;
const slowOnes = 4;
const credit = 1 << 20;
const MiB = 1 << 20;

/** Subscriptions of one client, all to the same topic: one is fast, the others take 5 ms for a message. */
const page = (url: string) => `
  import { connect } from "/sdk/client.js";
  const page = window.page = { bytes: 0, fast: [], slow: [], gaps: 0 };
  class Counting extends WebSocket {
    constructor(...all) {
      super(...all);
      this.addEventListener("message", (event) => (page.bytes += event.data.byteLength));
    }
  }
  const client = connect("${url}", { WebSocket: Counting });
  const number = (m) => Number(m.text().slice(0, 8));
  const subs = [client.subscribe("bulk", (m) => void page.fast.push(number(m)))];
  for (let i = 0; i < ${slowOnes}; i++) {
    const numbers = page.slow[i] = [];
    subs.push(client.subscribe("bulk", async (m) => {
      numbers.push(number(m));
      await new Promise((done) => setTimeout(done, 5));
    }));
  }
  for (const sub of subs) sub.on("gap", () => page.gaps++);
  await Promise.all(subs.map((sub) => sub.ready));
  page.ready = true;
`;

interface State {
  bytes: number;
  fast: number[];
  slow: number[][];
  gaps: number;
  ready: boolean;
}

async function publish(broker: Broker, first: number): Promise<void> {
  const line = (n: number) =>
    JSON.stringify({ topic: "bulk", payload: String(n).padStart(8, "0").padEnd(size, ".") });
  const body = Array.from({ length: batch }, (_, i) => line(first + i)).join("\n");
  const headers = { "content-type": "application/x-ndjson" };
  const response = await fetch(`${broker.url}/v1/messages`, { method: "POST", headers, body });
  expect(response.status, await response.text()).toBe(200);
}

/** What the broker holds in memory, in bytes. */
async function held(broker: Broker): Promise<number> {
  const profile = await (await fetch(`${broker.admin}/debug/pprof/heap?debug=1&gc=1`)).text();
  return Number(/^# HeapAlloc = (\d+)/m.exec(profile)?.[1]);
}

/** Memory of the scripts of a page, with their buffers, in bytes. */
async function heap(of: Page): Promise<number> {
  const session = await of.context().newCDPSession(of);
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize, backingStorageSize } = await session.send("Runtime.getHeapUsage");
  await session.detach();
  return usedSize + backingStorageSize;
}

inBrowser("a handler that takes 5 ms, at full rate", () => {
  test("costs page and broker no more than its credit, and slows nobody else", async () => {
    await using site = await startSite();
    await using broker = await startBroker({ origins: site.url });
    await using browser = await launchChromium();
    const tab = await browser.newPage();
    await tab.goto(site.page("/", script(page(broker.url))));
    await tab.waitForFunction("window.page?.ready");
    await publish(broker, 1);
    await tab.waitForFunction((n) => window.page.fast.length === n, batch);
    const before = { broker: await held(broker), tab: await heap(tab) };

    for (let n = 1; n < batches; n++) await publish(broker, n * batch + 1);
    const all = batches * batch;
    await tab.waitForFunction((n) => window.page.fast.length === n, all);
    const grown = { broker: (await held(broker)) - before.broker, tab: (await heap(tab)) - before.tab };
    const { bytes, fast, slow, gaps } = await tab.evaluate(() => window.page);
    const numbers = Array.from({ length: all }, (_, i) => i + 1);
    expect(fast).toEqual(numbers);
    expect(gaps).toBe(0);
    let handled = 0;
    for (const some of slow) {
      expect(some).toEqual(numbers.slice(0, some.length));
      expect(some.length).toBeLessThan(all / 2); // else nothing was slow
      handled += some.length;
    }
    // Of each message some 60 bytes are not payload.
    const due = (all + handled) * (size + 60);
    expect(bytes).toBeLessThan(due + slowOnes * 2 * credit);
    // Without a bound it would be 40 MiB for each slow one; what the log has of late the broker keeps once.
    expect(grown.tab).toBeLessThan(10 * MiB);
    expect(grown.broker).toBeLessThan(80 * MiB);
  });
});

declare global {
  interface Window {
    page: State;
  }
}
