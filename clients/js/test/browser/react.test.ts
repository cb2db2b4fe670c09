import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { type Broker, startBroker } from "../support/broker.js";
import { inBrowser, launchChromium, script, startSite, watch } from "../support/chromium.js";
import type { Seen } from "./react-page.js";

declare const seen: Seen;
const require = createRequire(import.meta.url);

/** Bundles the page with the packages of one version of React; StrictMode works in their development form alone. */
async function bundled(react: string, dom: string): Promise<string> {
  const alias = { react: dirname(require.resolve(react)), "react-dom": dirname(require.resolve(dom)) };
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, "react-page.ts")],
    bundle: true,
    write: false,
    format: "esm",
    target: "es2022",
    define: { "process.env.NODE_ENV": '"development"' },
    alias,
  });
  return outputFiles[0]!.text;
}

async function publish(broker: Broker, from: number, through: number): Promise<void> {
  const messages = [];
  for (let n = from; n <= through; n++) messages.push({ topic: `numbers.${n % 7}`, json: n });
  const body = JSON.stringify(messages);
  const headers = { "content-type": "application/json" };
  const response = await fetch(`${broker.url}/v1/messages`, { method: "POST", headers, body });
  expect(response.status).toBe(200);
}

/** How many subscriptions the broker has. */
async function subscriptions(broker: Broker): Promise<number> {
  const text = await (await fetch(`${broker.admin}/metrics`)).text();
  return Number(/^tidewire_subscriptions (\d+)/m.exec(text)?.[1]);
}

const count = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

inBrowser("React in a real browser", () => {
  test.each([
    ["18.", "react-18", "react-dom-18"],
    ["19.", "react", "react-dom"],
  ])(
    "under StrictMode, version %s: every message once, over a killed broker, and nothing is left behind",
    async (version, react, dom) => {
      await using broker = await startBroker();
      await using site = await startSite();
      await using browser = await launchChromium();
      const page = await browser.newPage();
      const lines = watch(page);
      site.page("/page.js", await bundled(react, dom));
      await publish(broker, 1, 1_000);
      await page.goto(`${site.page("/", script('import "/page.js"'))}?broker=${broker.url}`);
      await page.waitForFunction(() => seen.handled.length === 1_000 && seen.state === "open live");
      expect(await page.evaluate(() => seen.version)).toContain(version);
      expect(await subscriptions(broker)).toBe(3);

      await broker.restart();
      await publish(broker, 1_001, 2_000);
      await page.waitForFunction(() => seen.handled.length >= 2_000);
      await page.click("button:enabled");
      await page.waitForFunction(() => seen.sum >= 2_010 * 1005.5);
      const { handled, listed, renders, sum } = await page.evaluate(() => ({ ...seen, unmount: undefined }));
      expect(handled).toEqual(count(2_010));
      expect(sum).toBe(2_010 * 1005.5);
      expect(listed).toEqual(count(2_010).slice(-10));
      expect(renders).toBeLessThan(300);
      expect(await page.locator("li").allTextContents()).toEqual(listed.map(String));

      await page.evaluate(() => seen.unmount());
      await expect.poll(() => subscriptions(broker)).toBe(0);
      expect(lines.filter((line) => /^(error|warning):/.test(line) && !line.includes("WebSocket"))).toEqual(
        [],
      );
    },
  );
});
