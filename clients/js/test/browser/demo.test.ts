// The demo page, driven as a person would drive it, in a real browser against the
// real broker with its supervisor. All numbers are read from the page.
import { execFileSync } from "node:child_process";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BINARY } from "../support/binary.js";
import { type Broker, startBroker } from "../support/broker.js";
import { inBrowser, launchChromium, watch } from "../support/chromium.js";

type LaneName = "bare" | "tidewire" | "replay-lane";

interface Counts {
  received: number;
  missed: number;
  repeated: number;
  disorder: number;
}

const perfect = { missed: 0, repeated: 0, disorder: 0 };
const hostile = `<img src="x" onerror="window.hacked = true"><script>window.hacked = true</script>`;
const patience = { timeout: 30_000, interval: 50 };

inBrowser("the demo page", () => {
  let broker: Broker;
  let browser: Browser;

  beforeAll(async () => {
    broker = await startBroker({ dev: true, origins: "" });
    browser = await launchChromium();
  });

  afterAll(async () => {
    await browser?.close();
    await broker?.stop();
  });

  /** Opens the page in a profile of its own, and waits until both lanes run. */
  async function open(options: BrowserContextOptions = {}): Promise<Page> {
    const page = await (await browser.newContext(options)).newPage();
    await page.goto(broker.url);
    await running(page);
    return page;
  }

  test("a killed broker comes back, and only the bare lane has missed something", async () => {
    const page = await open();
    const before = await processes(page);
    await page.click("#kill");
    await expect.poll(() => text(page, "#broker-pid"), patience).not.toBe(String(before.broker));
    await expect.poll(async () => (await processes(page)).broker, patience).toBeGreaterThan(0);
    const after = await processes(page);
    expect(after.supervisor).toBe(before.supervisor);
    expect(after.starts).toBe(before.starts + 1);
    expect(alive(before.broker)).toBe(false);
    expect(alive(after.broker)).toBe(true);
    await onlyLeftHasMissed(page, 1);
    await page.context().close();
  });

  test("offline, nothing passes; online again, only the bare lane has missed something", async () => {
    const page = await open();
    await page.click("#offline");
    await expect.poll(() => text(page, "#tidewire .state"), patience).toBe("waiting");
    const last = await newest();
    await expect.poll(newest, patience).toBeGreaterThan(last + 5); // what came before is drawn by then
    const [left, right] = [await counts(page, "bare"), await counts(page, "tidewire")];
    await expect.poll(newest, patience).toBeGreaterThan(last + 20);
    expect(await counts(page, "bare")).toEqual(left);
    expect(await counts(page, "tidewire")).toEqual(right);
    await page.click("#offline");
    await onlyLeftHasMissed(page, 15);
    await page.context().close();
  });

  test("a cut socket costs only the bare lane something", async () => {
    const page = await open();
    await page.click("#cut");
    await onlyLeftHasMissed(page, 5);
    await page.click("#zero");
    await expect.poll(() => counts(page, "bare"), patience).toMatchObject(perfect);
    await running(page);
    await page.click("#cut");
    await onlyLeftHasMissed(page, 5);
    await page.context().close();
  });

  test("a slow tab loses nothing", async () => {
    const page = await open();
    const before = await counts(page, "tidewire");
    await page.click("#slow");
    await expect.poll(() => text(page, "#log"), patience).toContain("runs freely");
    await expect
      .poll(async () => (await counts(page, "tidewire")).received, patience)
      .toBeGreaterThan(before.received + 60);
    expect(await counts(page, "tidewire")).toMatchObject(perfect);
    await page.context().close();
  });

  test("a reloaded page goes on counting, and only the bare lane has missed something", async () => {
    const page = await open();
    for (let i = 0; i < 3; i++) {
      const before = await counts(page, "tidewire");
      await page.reload();
      await expect
        .poll(async () => (await counts(page, "tidewire")).received, patience)
        .toBeGreaterThan(before.received + 5);
      expect(await counts(page, "tidewire")).toMatchObject(perfect);
    }
    await onlyLeftHasMissed(page, 1);
    await page.context().close();
  });

  test("what curl sends appears, as text", async () => {
    const page = await open();
    const command = await text(page, "#curl-command");
    expect(command).toBe(`curl -d hello ${broker.url}/v1/topics/demo.curl/messages`);
    const headers = { "content-type": "application/x-www-form-urlencoded" }; // as curl -d has it
    await fetch(command.split(" ").at(-1)!, { method: "POST", headers, body: "hello" });
    await expect.poll(() => text(page, "#curl-list li:last-child .said"), patience).toBe("hello");
    await fetch(command.split(" ").at(-1)!, { method: "POST", headers, body: hostile });
    await expect.poll(() => text(page, "#curl-list li:last-child .said"), patience).toBe(hostile);
    await harmless(page);
    await page.context().close();
  });

  test("a chat goes over tabs, and what is written offline arrives once", async () => {
    const page = await open();
    const other = await page.context().newPage();
    await other.goto(broker.url);
    await running(other);
    await page.fill("#chat-name", "<b>Ann</b>");
    await page.fill("#chat-text", hostile);
    await page.press("#chat-text", "Enter");
    for (const tab of [page, other]) {
      await expect.poll(() => text(tab, "#chat-list li:last-child .said"), patience).toBe(hostile);
      expect(await text(tab, "#chat-list li:last-child b")).toBe("<b>Ann</b>");
      await harmless(tab);
    }
    await page.click("#offline");
    await page.fill("#chat-text", "from the tunnel");
    await page.click("#chat-form button");
    await expect.poll(() => text(page, "#chat-note"), patience).toContain("1 on the way");
    await page.click("#offline");
    for (const tab of [page, other]) {
      await expect.poll(() => text(tab, "#chat-list li:last-child .said"), patience).toBe("from the tunnel");
      expect(await tab.locator("#chat-list .said", { hasText: "from the tunnel" }).count()).toBe(1);
    }
    await expect.poll(() => text(page, "#chat-note"), patience).toBe("");
    await page.reload();
    expect(await page.inputValue("#chat-name")).toBe("<b>Ann</b>");
    await expect.poll(() => text(page, "#chat-list li:last-child .said"), patience).toBe("from the tunnel");
    await page.context().close();
  });

  test("jobs are done or become dead letters, and dead letters can be given back", async () => {
    const page = await open();
    await page.click("#add-jobs");
    const settled = async () => [await number(page, "#jobs-done"), await number(page, "#jobs-dead")];
    await expect.poll(async () => (await settled()).reduce((a, b) => a + b), patience).toBe(10);
    expect(await number(page, "#jobs-dead")).toBeGreaterThan(0);
    expect(await page.locator("#letters").innerText()).toContain("Job 7, after 3 attempts");
    expect(await text(page, '#jobs li:has(b:text-is("Job 7")) .what')).toBe("dead letter");
    const other = await page.context().newPage(); // another tab shows the same
    await other.goto(broker.url);
    await expect.poll(() => number(other, "#jobs-done"), patience).toBe(await number(page, "#jobs-done"));
    await other.close();
    await page.uncheck("#failing");
    const command = await text(page, "#redrive-command");
    const args = command.split(" ").slice(1);
    execFileSync(process.env[BINARY]!, [...args, "--server", broker.admin]);
    await expect.poll(settled, patience).toEqual([10, 0]);
    await page.context().close();
  });

  test("a replay goes ten times as fast, and ends where the feed is live", async () => {
    const page = await open();
    await expect.poll(newest, { ...patience, timeout: 50_000 }).toBeGreaterThan(200);
    const began = Date.now();
    await page.locator("#replay-slider").fill("-20");
    await expect.poll(() => text(page, "#replay-lane .state"), patience).toBe("replaying");
    await expect.poll(() => text(page, "#replay-lane .state"), patience).toBe("live");
    expect(Date.now() - began).toBeLessThan(12_000);
    expect(Date.now() - began).toBeGreaterThan(1_000);
    const replayed = await counts(page, "replay-lane");
    expect(replayed).toMatchObject(perfect);
    expect(replayed.received).toBeGreaterThan(50);
    expect(await text(page, "#replay-position")).toBe("now");
    await page.context().close();
  });

  test("where nobody starts a broker again, none is killed", async () => {
    const page = await (await browser.newContext()).newPage();
    const killed: string[] = [];
    await page.route("**/dev/processes", (route) => route.fulfill({ status: 404 }));
    page.on("request", (request) => request.url().endsWith("/dev/kill") && killed.push(request.url()));
    await page.goto(broker.url);
    await expect.poll(() => text(page, "#log"), patience).toContain("nobody starts the broker again");
    expect(await page.getAttribute("#kill", "aria-disabled")).toBe("true");
    await page.click("#kill", { force: true });
    await page.click("#cut");
    await expect.poll(() => text(page, "#log"), patience).toContain("Cut all connections");
    expect(killed).toEqual([]);
    await page.context().close();
  });

  test("it fits on a phone, and asks nobody else for anything", async () => {
    const page = await open({ viewport: { width: 360, height: 740 }, colorScheme: "dark" });
    const lines = watch(page);
    const hosts = new Set<string>();
    page.on("request", (request) => hosts.add(new URL(request.url()).origin));
    await page.reload();
    await running(page);
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(360);
    expect([...hosts]).toEqual([broker.url]);
    expect(lines).toEqual([]);
    await page.context().close();
  });

  /** The highest number that the broker has stored. */
  async function newest(): Promise<number> {
    const answer = await fetch(`${broker.url}/v1/topics/demo.host/messages?before=new&limit=1`);
    const { messages } = (await answer.json()) as { messages: { payload: string }[] };
    return JSON.parse(messages[0]?.payload ?? '{"n":0}').n;
  }
});

async function text(page: Page, selector: string): Promise<string> {
  return (await page.locator(selector).textContent({ timeout: 5_000 })) ?? "";
}

async function number(page: Page, selector: string): Promise<number> {
  return Number((await text(page, selector)).replaceAll(",", ""));
}

/** What a lane shows, all at one moment. */
async function counts(page: Page, lane: LaneName): Promise<Counts> {
  const parts = ["received", "missed", "repeated", "disorder"];
  const selector = parts.map((part) => `#${lane} [data-part="${part}"]`).join();
  const shown = await page
    .locator(selector)
    .evaluateAll((nodes) => nodes.map((node) => [node.getAttribute("data-part"), node.textContent]));
  return Object.fromEntries(
    shown.map(([part, n]) => [part, Number(n?.replaceAll(",", ""))]),
  ) as unknown as Counts;
}

async function processes(page: Page) {
  return {
    supervisor: await number(page, "#supervisor-pid"),
    broker: await number(page, "#broker-pid"),
    starts: await number(page, "#starts"),
  };
}

function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function running(page: Page): Promise<void> {
  for (const lane of ["bare", "tidewire"] as const) {
    await expect.poll(async () => (await counts(page, lane)).received, patience).toBeGreaterThan(3);
  }
  await expect.poll(async () => (await processes(page)).broker, patience).toBeGreaterThan(0);
}

/** Waits until both lanes have come to the same number again, and says that the right one has every one. */
async function onlyLeftHasMissed(page: Page, atLeast: number): Promise<void> {
  await expect
    .poll(async () => (await counts(page, "bare")).missed, patience)
    .toBeGreaterThanOrEqual(atLeast);
  const left = await counts(page, "bare");
  await expect
    .poll(async () => (await counts(page, "tidewire")).received, patience)
    .toBeGreaterThanOrEqual(left.received + left.missed - 3); // they did not begin with the same number
  expect(await counts(page, "tidewire")).toMatchObject(perfect);
  expect(left).toMatchObject({ repeated: 0, disorder: 0 });
}

async function harmless(page: Page): Promise<void> {
  expect(await page.locator(".messages img, .messages script").count()).toBe(0);
  expect(await page.evaluate("window.hacked")).toBeUndefined();
}
