// What happens to pages, with two lanes in each: a bare WebSocket as one writes it by
// hand, and the SDK. Both are judged by the numbers in the payloads; what the bare lane
// has missed proves that something did happen.
import { createHmac } from "node:crypto";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { type Broker, startBroker } from "../support/broker.js";
import { inBrowser, launchChromium, type Site, script, startSite, watch } from "../support/chromium.js";

const secret = "a-secret-of-the-tests-0123456789-0123";
const patience = { timeout: 30_000, interval: 20 };

/** A token that holds for so many seconds. */
function sign(seconds: number, key = secret): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = {
    sub: "page",
    exp: Math.floor(Date.now() / 1000) + seconds,
    publish: [">"],
    subscribe: [">"],
  };
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${text}.${createHmac("sha256", key).update(text).digest("base64url")}`;
}

/** The part of a page that the tests look at. `token` and `forged` are theirs. */
interface Lanes {
  bare: number[];
  tidewire: number[];
  states: string[];
  gaps: unknown[];
  /** How often the SDK has asked for a token. */
  asked: number;
  /** Tokens are those of a forger until the connection is lost. */
  forging: boolean;
  /** How many numbers the page has published itself. */
  published: number;
  persisted: boolean;
  over: boolean;
}

declare global {
  interface Window {
    lanes: Lanes;
  }
}

const lanes = (url: string) => `
  import { connect } from "/sdk/client.js";
  const lanes = window.lanes = {
    bare: [], tidewire: [], states: [], gaps: [], asked: 0, forging: false, published: 0, persisted: false, over: false,
  };
  addEventListener("pageshow", (event) => (lanes.persisted = event.persisted));

  async function bare() {
    const socket = new WebSocket("${url.replace("http", "ws")}/v1/ws", ["tidewire.v1.json", "bearer." + (await token())]);
    socket.onopen = () => socket.send(
      JSON.stringify({ type: "connect", subscriptions: [{ sub: 1, filter: "feed" }] }),
    );
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.type === "deliver") lanes.bare.push(...frame.messages.map((m) => Number(m.payload)));
      if (frame.type === "ping") socket.send(JSON.stringify({ type: "pong", seq: frame.seq }));
    };
    socket.onclose = () => setTimeout(bare, 1000);
  }
  bare();

  const client = connect("${url}", {
    token: () => (lanes.asked++, lanes.forging ? forged() : token()),
  });
  client.on("state", ({ state, error }) => {
    lanes.states.push(error ? state + " " + error.code : state);
    if (state === "waiting") lanes.forging = false;
  });
  const sub = client.subscribe("feed", (m) => void lanes.tidewire.push(m.data));
  sub.on("gap", (gap) => lanes.gaps.push(gap));
  await sub.ready;
  const timer = setInterval(() => {
    if (lanes.over) clearInterval(timer);
    else client.publish("page", String(++lanes.published));
  }, 20);
`;

/** What a lane has to show for itself. */
function count(numbers: number[]) {
  const different = new Set(numbers).size;
  return {
    missed: Math.max(...numbers) - Math.min(...numbers) + 1 - different,
    repeated: numbers.length - different,
    disorder: numbers.filter((n, i) => i && n < numbers[i - 1]!).length,
  };
}

const perfect = { missed: 0, repeated: 0, disorder: 0 };

inBrowser("a page with a bare lane", () => {
  let broker: Broker;
  let site: Site;
  let browser: Browser;

  beforeAll(async () => {
    [site, browser] = await Promise.all([startSite(), launchChromium([], { cache: true })]);
    const env = { TIDEWIRE_AUTH_JWT_SECRET: secret, TIDEWIRE_AUTH_JWT_LEEWAY: "0s" };
    broker = await startBroker({ origins: site.url, env });
    site.page("/lanes", script(lanes(broker.url)));
    site.page("/away", "somewhere else");
  });
  afterAll(async () => {
    await browser?.close();
    await site?.close();
    await broker?.stop();
  });

  const who = () => ({ authorization: `Bearer ${sign(60)}` });

  /** Opens the page, whose tokens hold for so many seconds, and waits until both lanes run. */
  async function open(context: BrowserContext, seconds: number): Promise<Page> {
    await context.exposeFunction("token", () => sign(seconds));
    await context.exposeFunction("forged", () => sign(seconds, "a-forger".repeat(8)));
    const page = await context.newPage();
    watch(page);
    await page.goto(`${site.url}/lanes`);
    return page;
  }

  const running = (page: Page) =>
    page.waitForFunction(() => window.lanes.bare.length && window.lanes.tidewire.length);

  let last = 0;

  /** Publishes numbers, one after the other, until it is told to stop. */
  function feed() {
    let over = false;
    const run = async () => {
      while (!over) {
        const body = String(++last);
        const headers = { ...who(), "content-type": "application/json", "idempotency-key": body };
        const post = () => fetch(`${broker.url}/v1/topics/feed/messages`, { method: "POST", headers, body });
        // While there is no broker, it is tried again.
        while (!over && (await post().catch(() => undefined))?.status !== 200)
          await new Promise((next) => setTimeout(next, 20));
        await new Promise((next) => setTimeout(next, 2)); // a rate, which nothing waits for
      }
    };
    const done = run();
    const end = () => {
      over = true;
      return done;
    };
    onTestFinished(end);
    return end;
  }

  const look = (page: Page): Promise<Lanes> => page.evaluate(() => window.lanes);

  /** Ends what runs, and judges it. */
  async function judge(page: Page, end: () => Promise<void>): Promise<Lanes> {
    // Both lanes run again: so what was missed in between is within what is counted.
    const { bare } = await look(page);
    await page.waitForFunction((n) => window.lanes.bare.length > n, bare.length);
    await end();
    await page.waitForFunction((n) => window.lanes.tidewire.at(-1) === n, last).catch(() => {});
    await page.evaluate(() => void (window.lanes.over = true));
    const found = await look(page);
    expect(found.tidewire.at(-1)).toBe(last);
    expect(count(found.tidewire)).toEqual(perfect);
    expect(found.gaps).toEqual([]);
    expect(count(found.bare).missed).toBeGreaterThan(0);
    return found;
  }

  /** What the page has published is stored, once and in order. */
  async function judgeStored(page: Page, before: number): Promise<void> {
    const { published } = await look(page);
    await expect.poll(async () => (await stored()).length - before, patience).toBe(published);
    expect((await stored()).slice(before)).toEqual(
      Array.from({ length: published }, (_, i) => String(i + 1)),
    );
  }

  async function stored(): Promise<string[]> {
    const found: string[] = [];
    for (let from = "earliest"; ; ) {
      const address = `${broker.url}/v1/topics/page/messages?limit=1000&from=${from}`;
      const answer = await (await fetch(address, { headers: who() })).json();
      if (!answer.messages.length) return found;
      found.push(...answer.messages.map((m: { payload: string }) => m.payload));
      from = answer.next;
    }
  }

  test("a token that expires is replaced in time, and the connection stays", async () => {
    await using context = await browser.newContext();
    const before = (await stored()).length;
    const end = feed();
    const page = await open(context, 6);
    await running(page);
    await page.waitForFunction(() => window.lanes.asked > 2);
    const { states } = await judge(page, end);
    expect(states).toEqual(["open"]);
    await judgeStored(page, before);
  });

  test("a new token that is refused costs the connection when the old one expires, and no message", async () => {
    await using context = await browser.newContext();
    const before = (await stored()).length;
    const end = feed();
    const page = await open(context, 4);
    await running(page);
    await page.evaluate(() => void (window.lanes.forging = true));
    await page.waitForFunction(() => window.lanes.states.length > 1);
    await page.waitForFunction(() => window.lanes.states.at(-1) === "open");
    const { states } = await judge(page, end);
    expect(states).toEqual(["open", "waiting token_expired", "connecting", "open"]);
    await judgeStored(page, before);
  });

  test("a broker that is killed under load costs only the bare lane something", async () => {
    await using context = await browser.newContext();
    const before = (await stored()).length;
    const end = feed();
    const page = await open(context, 3600);
    for (let kills = 1; kills <= 3; kills++) {
      await running(page);
      await broker.restart();
      await page.waitForFunction((n) => window.lanes.states.filter((s) => s === "open").length > n, kills);
    }
    await judge(page, end);
    await judgeStored(page, before);
  });

  test("a page that comes back from the back-forward cache has missed nothing", async () => {
    await using context = await browser.newContext();
    const before = (await stored()).length;
    const end = feed();
    const page = await open(context, 3600);
    await running(page);
    await page.goto(`${site.url}/away`);
    const left = last;
    await expect.poll(() => last, patience).toBeGreaterThan(left + 200);
    await page.goBack({ waitUntil: "commit" });
    await page.waitForFunction(() => window.lanes.persisted); // it is the same page, not a new one
    const { states, tidewire } = await judge(page, end);
    expect(tidewire[0]).toBeLessThan(left);
    expect(states).toEqual(["open", "idle", "connecting", "open"]);
    await judgeStored(page, before);
  });
});
