import { expect, test } from "vitest";
import { startBroker } from "../support/broker.js";
import { inBrowser, launchChromium, script, startSite, watch } from "../support/chromium.js";

inBrowser("the browser of the tests", () => {
  test("runs a module of a page and reaches the broker", async () => {
    await using broker = await startBroker();
    await using site = await startSite();
    await using browser = await launchChromium();
    const page = await browser.newPage();
    const lines = watch(page);
    const address = site.page(
      "/",
      script(`
        const topic = "${broker.url}/v1/topics/room.1/messages";
        await fetch(topic, { method: "POST", body: "hello" });
        window.read = await (await fetch(topic + "?from=earliest")).text();
        console.log("done");
      `),
    );
    await page.goto(address);
    await page.waitForFunction("window.read !== undefined");
    expect(await page.evaluate("window.read")).toContain("hello");
    expect(lines).toEqual(["log: done"]);
  });
});
