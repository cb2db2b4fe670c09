import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, expect, onTestFailed, test } from "vitest";
import { type Broker, startBroker } from "../support/broker.js";
import {
  chromiumPath,
  inBrowser,
  launchChromium,
  type Site,
  script,
  startSite,
  watch,
} from "../support/chromium.js";

/** Adds numbers to the object store `orders`, each under a key of its own, so that a double is seen. */
const shop = (broker: Broker) => `
  import { connect } from "/sdk/client.js";
  import { openStore } from "/sdk/idb.js";
  const store = (window.store = await openStore("shop", {
    upgrade(db) {
      db.createObjectStore("orders", { autoIncrement: true });
      db.createObjectStore("sums");
    },
  }));
  const client = (window.client = connect("${broker.url}", { outbox: { store: store.outbox } }));
`;

const worker = `
  const ask = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  window.processing = store.process(
    client, "numbers", { name: "numbers", stores: ["orders", "sums"], from: "earliest" },
    async (tx, m) => {
      const number = m.json();
      tx.objectStore("orders").add(number);
      const sums = tx.objectStore("sums");
      sums.put(((await ask(sums.get("sum"))) ?? 0) + number, "sum");
      window.onNumber?.(number);
    },
  );
`;

/** Reloads the page in the midst of a handler, once at each of these numbers. */
const reloading = (at: number[]) => `
  window.onNumber = (number) => {
    if (!${JSON.stringify(at)}.includes(number) || sessionStorage.getItem(number)) return;
    sessionStorage.setItem(number, "reloaded");
    location.reload();
  };
`;

/** What a page's database holds. */
const held = `(async () => {
  const tx = store.db.transaction(["orders", "sums"]);
  const all = (request) => new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
  const [orders, sum] = await Promise.all([all(tx.objectStore("orders").getAll()), all(tx.objectStore("sums").get("sum"))]);
  return { orders, sum };
})()`;

/** That nothing is left in the outbox. */
const empty = `(() => {
  if (!window.store) return false;
  const rows = store.db.transaction("tidewire.outbox").objectStore("tidewire.outbox");
  rows.count().onsuccess = (event) => (window.left = event.target.result);
  return window.left === 0;
})()`;

type Held = { orders: number[]; sum: number };

const numbers = (n: number, from = 1) => Array.from({ length: n }, (_, i) => from + i);
const total = (n: number) => (n * (n + 1)) / 2;

async function publish(broker: Broker, values: number[]): Promise<void> {
  const lines = values.map((value) => JSON.stringify({ topic: "numbers", id: `n${value}`, json: value }));
  const response = await fetch(`${broker.url}/v1/messages`, {
    method: "POST",
    headers: { "content-type": "application/x-ndjson" },
    body: lines.join("\n"),
  });
  expect(response.status, await response.text()).toBe(200);
}

/** Everything that is stored on a topic, in the order of the log. */
async function stored(broker: Broker, topic: string): Promise<{ id: string; payload: string }[]> {
  const found: { id: string; payload: string }[] = [];
  for (let from = "earliest"; ; ) {
    const response = await fetch(`${broker.url}/v1/topics/${topic}/messages?limit=1000&from=${from}`);
    const { messages, next } = (await response.json()) as { messages: typeof found; next: string };
    if (!messages.length) return found;
    found.push(...messages);
    from = next;
  }
}

/** The page is just being loaded again; everything else is an error. */
function reloaded(error: Error): undefined {
  if (!/context was destroyed|store is not defined/.test(error.message)) throw error;
}

/** Says what a page has written, if the test fails. */
function told(page: Page): void {
  const lines = watch(page);
  onTestFailed(() => console.log(lines.slice(-50).join("\n")));
}

/** Kills the process of a page. Nobody answers that it is done. */
async function crashed(page: Page): Promise<void> {
  const session = await page.context().newCDPSession(page);
  session.send("Page.crash").catch(() => {});
}

/** Waits until a page's database holds so many numbers, and gives them. */
async function applied(page: Page, n: number): Promise<Held> {
  const enough = `new Promise((resolve) => {
    const look = () => {
      store.db.transaction("orders").objectStore("orders").count().onsuccess = (event) =>
        event.target.result < ${n} ? setTimeout(look, 50) : resolve(${held});
    };
    look();
  })`;
  for (;;) {
    const found = (await page.evaluate(enough).catch(reloaded)) as Held | undefined;
    if (found) return found;
    await page.waitForFunction("window.store").catch(reloaded);
  }
}

/** Random numbers of a seed, which a failing run names. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

inBrowser("a store in IndexedDB", () => {
  let browser: Browser;
  let broker: Broker;
  let site: Site;
  beforeAll(async () => {
    browser = await launchChromium();
    site = await startSite();
  });
  afterAll(async () => {
    await browser?.close();
    await site?.close();
  });
  beforeEach(async () => {
    broker = await startBroker();
    return () => broker.stop();
  });

  async function open(code: string): Promise<Page> {
    const context = await browser.newContext();
    const page = await context.newPage();
    told(page);
    await page.goto(site.page("/", script(shop(broker) + code)));
    await page.waitForFunction("window.store").catch(reloaded);
    return page;
  }

  test("process: each message once, over reloads, crashes and a killed broker", async () => {
    const seed = Date.now() % 1e9;
    const next = random(seed);
    const count = 6_000;
    const at = numbers(4).map((i) => i * 500 + next(400));
    let page = await open(reloading(at) + worker);
    const context = page.context();
    await publish(broker, numbers(1_000));
    await publish(broker, numbers(1_000, 1_001));
    await applied(page, 1_500 + next(400));
    await broker.kill();
    await broker.restart();
    for (let from = 2_001; from <= count; from += 1_000) await publish(broker, numbers(1_000, from));
    for (let crash = 0; crash < 6; crash++) {
      await applied(page, 2_500 + crash * 500 + next(400));
      const address = page.url();
      await crashed(page);
      page = await context.newPage();
      told(page);
      await page.goto(address);
    }
    const { orders, sum } = await applied(page, count);
    expect(orders, `seed ${seed}`).toEqual(numbers(count));
    expect(sum).toBe(total(count));
    await context.close();
  });

  test("process: a page that can write nothing more right behind a transaction", async () => {
    const page = await open("");
    const context = page.context();
    const address = site.page(
      "/dies",
      script(`
        const begin = IDBDatabase.prototype.transaction;
        let left = 3;
        IDBDatabase.prototype.transaction = function (names, mode) {
          if (!left) throw new Error("dead");
          const tx = begin.call(this, names, mode);
          if (mode === "readwrite" && [...tx.objectStoreNames].includes("orders")) {
            tx.addEventListener("complete", () => left--);
          }
          return tx;
        };
        ${shop(broker)} ${worker}
        window.outcome = processing.done.catch((error) => error.message);
      `),
    );
    for (const from of [1, 1_001, 2_001]) await publish(broker, numbers(1_000, from));
    for (let deaths = 0; deaths < 3; deaths++) {
      const dying = await context.newPage();
      await dying.goto(address);
      await dying.waitForFunction("window.outcome");
      expect(await dying.evaluate("outcome")).toBe("dead");
      await dying.close();
    }
    expect(((await page.evaluate(held)) as Held).orders.length).toBeLessThan(3_000);
    await page.goto(site.page("/", script(shop(broker) + worker)));
    const { orders, sum } = await applied(page, 3_000);
    expect(orders).toEqual(numbers(3_000));
    expect(sum).toBe(total(3_000));
    await context.close();
  });

  test.each(["closed", "crashed"])(
    "process: of two tabs one works; when it is %s the other goes on",
    async (how) => {
      const context = await browser.newContext();
      const address = site.page("/", script(shop(broker) + worker));
      const first = await context.newPage();
      await first.goto(address);
      const states = "window.processing?.state";
      await first.waitForFunction(`${states} === "live"`);
      const second = await context.newPage();
      told(second);
      await second.goto(address);
      await second.waitForFunction("window.processing");
      const publishing = (async () => {
        for (let from = 1; from <= 3_000; from += 50) await publish(broker, numbers(50, from));
      })();
      await applied(second, 1_000);
      expect(await second.evaluate(states)).toBe("waiting");
      if (how === "closed") {
        await first.close({ runBeforeUnload: false });
      } else {
        const session = await context.newCDPSession(first);
        session.send("Page.crash").catch(() => {});
      }
      await publishing;
      const { orders, sum } = await applied(second, 3_000);
      expect(orders).toEqual(numbers(3_000));
      expect(sum).toBe(total(3_000));
      await context.close();
    },
  );

  test("process: a page in the back-forward cache makes room, and comes back", async () => {
    const cached = await chromium.launch({
      executablePath: chromiumPath()!,
      args: ["--no-sandbox", "--disable-gpu"],
      ignoreDefaultArgs: ["--disable-back-forward-cache"],
    });
    const context = await cached.newContext();
    const remember = `addEventListener("pageshow", (event) => (window.persisted = event.persisted));`;
    const address = site.page("/", script(remember + shop(broker) + worker));
    const [first, second] = [await context.newPage(), await context.newPage()];
    await first.goto(address);
    await publish(broker, numbers(100));
    await applied(first, 100);
    await second.goto(address);
    await first.goto(site.page("/other", script("")));
    await publish(broker, numbers(100, 101));
    await applied(second, 200);
    await first.goBack({ waitUntil: "commit" });
    await first.waitForFunction("window.persisted");
    expect(await first.evaluate("processing.state")).toBe("waiting");
    await second.close();
    await publish(broker, numbers(100, 201));
    const { orders, sum } = await applied(first, 300);
    expect(orders).toEqual(numbers(300));
    expect(sum).toBe(total(300));
    await cached.close();
  });

  test("process: who awaits something else, or throws, has written nothing", async () => {
    const page = await open(`
      const attempt = (name, handler) =>
        store.process(client, "numbers", { name, stores: "orders", from: "earliest" }, handler).done.then(
          () => "closed",
          (error) => [error.name, error.code, error.message],
        );
      window.outcomes = Promise.all([
        attempt("waits", async (tx, m) => {
          tx.objectStore("orders").add(1);
          await fetch("/");
          tx.objectStore("orders").add(2);
        }),
        attempt("throws", async (tx, m) => {
          tx.objectStore("orders").add(3);
          await fetch("/");
          throw new Error("after a request");
        }),
        attempt("throws at once", (tx, m) => {
          tx.objectStore("orders").add(4);
          throw new Error("at once");
        }),
      ]);
    `);
    await publish(broker, [1]);
    await page.waitForFunction("window.outcomes");
    const [waits, throws, atOnce] = (await page.evaluate("outcomes")) as string[][];
    expect(waits).toEqual([
      "TidewireError",
      "transaction_over",
      expect.stringContaining("Nothing of this message"),
    ]);
    expect(throws).toEqual(["Error", undefined, "after a request"]);
    expect(atOnce).toEqual(["Error", undefined, "at once"]);
    expect(((await page.evaluate(held)) as Held).orders).toEqual([]);
    await page.context().close();
  });

  test("outbox: what a page has published arrives once and in order, over reloads and a killed broker", async () => {
    const seed = Date.now() % 1e9;
    const next = random(seed);
    const bursts = [...Array.from({ length: 24 }, () => next(3)), 1];
    // In each burst the page publishes 20 numbers, and then perhaps reloads.
    const page = await open(`
      const bursts = ${JSON.stringify(bursts)};
      const loads = (localStorage.loads = Number(localStorage.loads ?? 0) + 1);
      for (;;) {
        const burst = Number(localStorage.burst ?? 0);
        if (burst === bursts.length) break;
        for (let i = 1; i <= 20; i++) {
          client.publish("numbers", { number: burst * 20 + i, load: loads }).catch(() => {});
        }
        await store.kept();
        localStorage.burst = burst + 1;
        if (bursts[burst] === 0) {
          location.reload();
          await new Promise(() => {});
        }
        await new Promise((turn) => setTimeout(turn, bursts[burst] * 5));
      }
    `);
    const bursted = (n: number) => page.waitForFunction(`Number(localStorage.burst ?? 0) >= ${n}`);
    await bursted(8);
    await broker.kill();
    await bursted(25);
    await page.reload();
    await broker.restart();
    const read = async () => (await stored(broker, "numbers")).map((m) => JSON.parse(m.payload));
    let all = await read();
    while (all.length < 500) all = await read();
    expect(
      all.map((m) => m.number).sort((a, b) => a - b),
      `seed ${seed}`,
    ).toEqual(numbers(500));
    const loads = new Set(all.map((m) => m.load as number));
    expect(loads.size).toBeGreaterThan(3);
    for (const load of loads) {
      const own = all.filter((m) => m.load === load).map((m) => m.number as number);
      expect(own, `seed ${seed}, load ${load}`).toEqual([...own].sort((a, b) => a - b));
    }
    await page.waitForFunction(empty);
    await page.context().close();
  });

  test("outbox: a tab leaves alone what another one that lives has published", async () => {
    const context = await browser.newContext();
    const address = site.page("/", script(`${shop(broker)} window.ready = true;`));
    const load = async () => {
      const page = await context.newPage();
      await page.goto(address);
      await page.waitForFunction("window.ready");
      return page;
    };
    const first = await load();
    await first.waitForFunction(`client.state === "open"`);
    await broker.kill();
    await first.evaluate(`for (let i = 1; i <= 50; i++) client.publish("numbers", i).catch(() => {}); 0`);
    const second = await load();
    expect(await second.evaluate("store.outbox.load()")).toEqual([]);
    await first.close();
    const third = await load();
    await second.evaluate(`client.publish("numbers", 51).catch(() => {}); 0`);
    await broker.restart();
    let all = await stored(broker, "numbers");
    while (all.length < 51) all = await stored(broker, "numbers");
    const found = all.map((m) => JSON.parse(m.payload) as number);
    expect(found.filter((n) => n <= 50)).toEqual(numbers(50));
    expect(found).toHaveLength(51);
    await third.waitForFunction(empty);
    await context.close();
  });
});
