import type { BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Broker, startBroker } from "../support/broker.js";
import { inBrowser, launchChromium, type Site, script, startSite, watch } from "../support/chromium.js";

/** What a page of these tests has: everything that it was given, and what it publishes. */
const code = (url: string) => `
  import { connectTabs } from "/sdk/tabs.js";
  const query = new URLSearchParams(location.search);
  const name = query.get("name");
  const tab = window.tab = { got: [], at: [], gaps: [], busy: 0, published: 0, answered: 0, failed: [], states: [], worked: [] };
  class Real extends WebSocket {
    constructor(...all) { super(...all); tab.real = this; }
  }
  const client = tab.client = connectTabs("${url}", { WebSocket: Real });
  client.on("state", ({ state }) => tab.states.push([state, Date.now()]));
  const sub = tab.sub = client.subscribe("feed.>", (m) => { tab.got.push(Number(m.text())); tab.at.push(Date.now()); });
  sub.on("gap", (gap) => tab.gaps.push(gap));
  tab.publish = () => client.publish("tab." + name, String(++tab.published))
    .then(() => tab.answered++, (error) => tab.failed.push(String(error)));
  tab.work = (stuck) => client.consume("jobs", "jobs.>", async (m) => {
    tab.worked.push(m.text());
    if (stuck) await new Promise(() => {});
  });
  await sub.ready;
  tab.ready = true;
`;

/** The part of a page that the tests look at. */
interface Tab {
  got: number[];
  at: number[];
  gaps: unknown[];
  /** How many timers publish. */
  busy: number;
  published: number;
  answered: number;
  failed: string[];
  worked: string[];
  ready: boolean;
  real?: WebSocket;
  publish(): void;
  work(stuck: boolean): void;
  client: { state: string };
}

declare global {
  interface Window {
    tab: Tab;
  }
}

let broker: Broker;
let site: Site;
/** The same site, under a name that browsers do not trust without https. */
let insecure: string;
let browser: Awaited<ReturnType<typeof launchChromium>>;

inBrowser("tabs of a real browser", () => {
  beforeAll(async () => {
    [site, browser] = await Promise.all([
      startSite(),
      launchChromium(["--host-resolver-rules=MAP insecure.test 127.0.0.1"]),
    ]);
    insecure = `${site.url.replace("localhost", "insecure.test")}/tab`;
    broker = await startBroker({
      env: { TIDEWIRE_ALLOWED_ORIGINS: `${site.url},${new URL(insecure).origin}` },
    });
    site.page("/tab", script(code(broker.url)));
  });
  afterAll(async () => {
    await browser?.close();
    await site?.close();
    await broker?.stop();
  });

  let named = 0;
  const logs: string[][] = [];

  async function open(context: BrowserContext, address = `${site.url}/tab`): Promise<Page> {
    const page = await context.newPage();
    logs.push(watch(page));
    await page.goto(`${address}?name=${++named}`);
    await page.waitForFunction(() => window.tab?.ready);
    return page;
  }

  async function openTabs(context: BrowserContext, count: number): Promise<Page[]> {
    const pages: Page[] = [];
    while (pages.length < count) pages.push(await open(context));
    return pages;
  }

  /** How many sessions the broker has. */
  async function sessions(): Promise<number> {
    const text = await (await fetch(`${broker.admin}/metrics`)).text();
    return Number(/^tidewire_sessions (\d+)/m.exec(text)?.[1]);
  }

  const leads = (page: Page) => page.evaluate(() => window.tab.real?.readyState === 1);

  /** Takes the leader out of the pages. */
  async function leader(pages: Page[]): Promise<Page> {
    for (const page of pages) if (await leads(page)) return pages.splice(pages.indexOf(page), 1)[0]!;
    throw new Error("no page has a connection");
  }

  /** Numbers that are published from outside. */
  class Feed {
    static last = 0;
    first = Feed.last + 1;
    #over = false;
    #done: Promise<void>;

    constructor() {
      this.#done = this.#run();
    }

    async #run(): Promise<void> {
      while (!this.#over) {
        const body = String(++Feed.last);
        const response = await fetch(`${broker.url}/v1/topics/feed.x/messages`, { method: "POST", body });
        expect(response.status).toBe(200);
      }
    }

    /** Resolves when so many more are stored. */
    async more(count: number): Promise<void> {
      const goal = Feed.last + count;
      await expect.poll(() => Feed.last, { timeout: 20_000, interval: 5 }).toBeGreaterThan(goal);
    }

    async end(): Promise<void> {
      this.#over = true;
      await this.#done;
    }
  }

  /** Waits until a page has everything, and judges it by its numbers. */
  async function judge(page: Page, from = 0): Promise<void> {
    const last = Feed.last;
    const handle = page.waitForFunction((n) => window.tab.got.at(-1) === n, last, { timeout: 20_000 });
    await handle.catch(() => {});
    const { got, gaps, failed } = await page.evaluate(() => {
      const { got, gaps, failed } = window.tab;
      return { got, gaps, failed };
    });
    const since = got.filter((n) => n >= from);
    expect(since).toEqual(Array.from({ length: last - since[0]! + 1 }, (_, i) => since[0]! + i));
    expect(gaps).toEqual([]);
    expect(failed).toEqual([]);
  }

  /** What a page published is stored once, in order, all of it. */
  async function judgeStored(page: Page, at = broker): Promise<void> {
    await page.waitForFunction(
      () => !window.tab.busy && window.tab.answered === window.tab.published,
      undefined,
      {
        timeout: 20_000,
      },
    );
    const published = await page.evaluate(() => window.tab.published);
    const topic = `tab.${new URL(page.url()).searchParams.get("name")}`;
    const stored: string[] = [];
    for (let from = "earliest"; ; ) {
      const address = `${at.url}/v1/topics/${topic}/messages?limit=1000&from=${from}`;
      const answer = await (await fetch(address)).json();
      if (!answer.messages.length) break;
      stored.push(...answer.messages.map((m: { payload: string }) => m.payload));
      from = answer.next;
    }
    expect(stored).toEqual(Array.from({ length: published }, (_, i) => String(i + 1)));
  }

  /** The longest time without a message, among the newest of a page. */
  const pause = (page: Page, since: number) =>
    page.evaluate((since) => {
      const at = window.tab.at.filter((t) => t >= since);
      return Math.max(...at.slice(1).map((t, i) => t - at[i]!));
    }, since);

  const deaths: [string, (page: Page) => Promise<unknown>][] = [
    ["is closed", (page) => page.close()],
    ["crashes", (page) => page.goto("chrome://crash").catch(() => {})],
  ];

  /** The leader dies while everybody gets and publishes. Returns how long the others were without messages. */
  async function handOver(
    pages: Page[],
    kill: (page: Page) => Promise<unknown>,
    feed: Feed,
  ): Promise<number[]> {
    for (const page of pages) {
      await page.evaluate(() => {
        const timer = setInterval(() => window.tab.publish(), 3);
        window.tab.busy++;
        setTimeout(() => {
          window.tab.busy--;
          clearInterval(timer);
        }, 700);
      });
    }
    await feed.more(30);
    const dead = await leader(pages);
    const since = Date.now();
    await kill(dead);
    await feed.more(100);
    const pauses = await Promise.all(pages.map((page) => pause(page, since - 50)));
    if (!dead.isClosed()) await dead.close();
    await expect.poll(sessions, { timeout: 10_000 }).toBe(1);
    return pauses;
  }

  for (const [count, how] of [2, 5].flatMap((n) => deaths.map(([how]) => [n, how] as const))) {
    test(`${count} tabs share a session; the leader's ${how}: none lost, none double`, async () => {
      await using context = await browser.newContext();
      const pages = await openTabs(context, count);
      expect(await sessions()).toBe(1);
      const feed = new Feed();
      const pauses: number[] = [];
      const kill = new Map(deaths).get(how)!;
      for (let round = 0; round < 4; round++) {
        pauses.push(...(await handOver(pages, kill, feed)));
        pages.push(await open(context));
      }
      await feed.end();
      for (const page of pages) {
        await judge(page);
        await judgeStored(page);
      }
      expect(await sessions()).toBe(1);
      pauses.sort((a, b) => a - b);
      console.log(`${count} tabs, ${how}: hand-over median ${pauses[pauses.length >> 1]} ms, all ${pauses}`);
    });
  }

  test("a frozen leader hands over, and a tab that wakes gets what it missed", async () => {
    await using context = await browser.newContext();
    const pages = await openTabs(context, 3);
    const feed = new Feed();
    const frozen = await leader(pages);
    const devtools = await context.newCDPSession(frozen);
    await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
    await feed.more(100);
    for (const page of pages) await page.waitForFunction((n) => window.tab.got.at(-1)! > n, Feed.last);
    await devtools.send("Page.setWebLifecycleState", { state: "active" });
    await feed.more(50);
    await feed.end();
    for (const page of [...pages, frozen]) await judge(page);
    expect(await sessions()).toBe(1);
  });

  test("a leader that hangs is overthrown, and is a guest when it is back", async () => {
    await using context = await browser.newContext();
    const pages = await openTabs(context, 3);
    const feed = new Feed();
    const hung = await leader(pages);
    const hangs = hung.waitForEvent("console", (message) => message.text() === "hangs");
    const over = hung.evaluate(() => {
      console.log("hangs");
      for (const until = Date.now() + 9000; Date.now() < until; );
    });
    await hangs;
    for (const page of pages) await page.evaluate(() => window.tab.publish());
    await judgeStored(pages[0]!);
    expect(await Promise.all(pages.map(leads))).toContain(true);
    await over;
    await feed.more(50);
    await feed.end();
    for (const page of [...pages, hung]) await judge(page);
    await expect.poll(sessions).toBe(1);
  });

  test("a leader that goes to another page and back again loses nothing for anybody", async () => {
    await using context = await browser.newContext();
    site.page("/other", "other");
    const pages = await openTabs(context, 3);
    const feed = new Feed();
    const away = await leader(pages);
    await away.goto(`${site.url}/other`);
    await feed.more(50);
    for (const page of pages) await page.waitForFunction((n) => window.tab.got.at(-1)! > n, Feed.last);
    await away.goBack();
    await away.waitForFunction(() => window.tab?.ready && window.tab.client.state === "open");
    await feed.more(50);
    await feed.end();
    for (const page of [...pages, away]) await judge(page);
    expect(await sessions()).toBe(1);
  });

  test("a broker that refuses for a while gets each tab's messages in order, once", async () => {
    const env = { TIDEWIRE_LIMITS_RATES_PUBLISH: "200", TIDEWIRE_ALLOWED_ORIGINS: site.url };
    await using strict = await startBroker({ env });
    await using context = await browser.newContext();
    const address = site.page("/strict", script(code(strict.url)));
    const pages: Page[] = [];
    while (pages.length < 3) pages.push(await open(context, address));
    for (const page of pages) {
      await page.evaluate(() => {
        for (let i = 0; i < 300; i++) setTimeout(() => window.tab.publish(), i);
      });
    }
    const text = async () => (await fetch(`${strict.admin}/metrics`)).text();
    await expect.poll(text, { timeout: 10_000 }).toMatch(/limits_total\{limit="publish_rate"\} [1-9]/);
    for (const page of pages) {
      await page.waitForFunction(() => window.tab.published === 300);
      await judgeStored(page, strict);
    }
  });

  test("a page that came by http has a connection of its own, and the console says so", async () => {
    await using context = await browser.newContext();
    const pages = [await open(context, insecure), await open(context, insecure)];
    expect(await sessions()).toBe(2);
    expect(await Promise.all(pages.map(leads))).toEqual([true, true]);
    const lines = logs.at(-1)!;
    expect(lines.filter((l) => l.includes("tidewire"))).toEqual([
      expect.stringContaining("connection of its own"),
    ]);
  });

  for (const [how, kill] of deaths) {
    test(`a consumer's work goes to other tabs at once when its tab ${how}`, async () => {
      await using context = await browser.newContext();
      const pages = await openTabs(context, 3);
      const first = await leader(pages);
      const [stuck, other] = pages as [Page, Page];
      await stuck.evaluate(() => window.tab.work(true));
      const topic = `jobs.${how.replaceAll(" ", "-")}`;
      await fetch(`${broker.url}/v1/topics/${topic}/messages`, { method: "POST", body: topic });
      await stuck.waitForFunction((t) => window.tab.worked.includes(t), topic);
      await other.evaluate(() => window.tab.work(false));
      // The leader lives: it must notice. The broker would wait 30 s.
      await kill(stuck);
      await other.waitForFunction((t) => window.tab.worked.includes(t), topic, { timeout: 15_000 });
      expect(await leads(first)).toBe(true);
    });
  }
});
