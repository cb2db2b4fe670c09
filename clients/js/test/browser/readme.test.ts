import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Broker, startBroker } from "../support/broker.js";
import { inBrowser, launchChromium, SDK, script, startSite, watch } from "../support/chromium.js";

const root = join(import.meta.dirname, "../..");
const readme = readFileSync(join(root, "README.md"), "utf8");
const pages = (text: string) => [...text.matchAll(/<!-- page -->\n```html\n(.*?)```/gs)].map((m) => m[1]!);
const lines = (page: Page) => page.locator("li").allTextContents();

/** Sends the form of the page, as somebody who types. */
async function say(page: Page, text: string): Promise<void> {
  await page.locator("input").fill(text);
  await page.locator("button").click();
}

inBrowser("README.md", () => {
  let browser: Browser;
  const directory = mkdtempSync(join(tmpdir(), "tidewire-readme-"));

  beforeAll(async () => {
    browser = await launchChromium();
  });
  afterAll(async () => {
    await browser.close();
    rmSync(directory, { recursive: true });
  });

  /** Saves a page to disk, and opens the file. Only the broker's address is another. */
  async function open(html: string, broker: Broker): Promise<Page> {
    expect(html.split("http://localhost:7070")).toHaveLength(3);
    const file = join(directory, "chat.html");
    writeFileSync(file, html.replaceAll("http://localhost:7070", broker.url));
    const page = await (await browser.newContext()).newPage();
    await page.goto(pathToFileURL(file).href);
    return page;
  }

  test("has a page of some twenty lines, which the README of the project shows, too", () => {
    expect(pages(readme)).toHaveLength(1);
    expect(pages(readFileSync(join(root, "../../README.md"), "utf8"))).toEqual(pages(readme));
    expect(pages(readme)[0]!.trimEnd().split("\n").length).toBeLessThanOrEqual(24);
  });

  test("its page works from a file, and over a broker that is killed", async () => {
    await using broker = await startBroker({ dev: true, origins: "" });
    const [html] = pages(readme);
    const [ann, ben] = [await open(html!, broker), await open(html!, broker)];
    const said = [watch(ann), watch(ben)];
    await say(ann, "one");
    await expect.poll(() => lines(ben)).toEqual(["one"]);
    await say(ben, "two");
    await expect.poll(() => lines(ann)).toEqual(["one", "two"]);

    await broker.kill();
    await say(ann, "three");
    await say(ann, "four");
    await broker.restart();
    for (const page of [ann, ben]) {
      await expect.poll(() => lines(page), { timeout: 20_000 }).toEqual(["one", "two", "three", "four"]);
    }
    await ann.reload();
    await expect.poll(() => lines(ann)).toEqual(["one", "two", "three", "four"]);
    expect(said.flat().filter((line) => line.startsWith("error") && !line.includes("WebSocket"))).toEqual([]);
    for (const page of [ann, ben]) await page.context().close();
  });

  test("lists what the console says when it does not connect", async () => {
    const listed = readme.match(/<!-- console: begin.*?-->\n(.*?)<!-- console: end -->/s)![1]!;
    const reasons = [...listed.matchAll(/^\* `(.*)`$/gm)].map((m) => m[1]!);
    expect(reasons).toHaveLength(4);
    const config = join(directory, "tidewire.yaml");
    writeFileSync(config, "auth:\n  jwt:\n    secret: 0123456789-0123456789-0123456789\n");
    await using site = await startSite();
    await using strict = await startBroker({ origins: "" });
    await using guarded = await startBroker({ args: ["--config", config] });
    const code = (url: string) => script(`import { connect } from "/sdk/client.js"; connect("${url}");`);
    const page = await browser.newPage();
    await page.route("https://secure.test/**", (route) => {
      const { pathname } = new URL(route.request().url());
      const sdk = join(process.env[SDK]!, "client.js");
      return pathname === "/"
        ? route.fulfill({ contentType: "text/html", body: code("http://broker.test:7070") })
        : route.fulfill({ contentType: "text/javascript", path: sdk });
    });
    const cases = [
      [site.page("/none", code("http://127.0.0.1:9")), "127.0.0.1:9"],
      ["https://secure.test/", "broker.test:7070"],
      [site.page("/strict", code(strict.url)), new URL(strict.url).host],
      [site.page("/guarded", code(guarded.url)), new URL(guarded.url).host],
    ] as const;
    for (const [i, [address, host]] of cases.entries()) {
      const written = page.waitForEvent("console", (m) => m.text().startsWith("tidewire:"));
      await page.goto(address);
      const text = (await written)
        .text()
        .replace(host, "localhost:7070")
        .replace(site.url, "http://localhost:5173");
      expect(text).toContain(reasons[i]);
      expect(text).toContain(i < 2 ? "it goes on trying" : "it does not come back");
    }
    await page.close();
  });
});
