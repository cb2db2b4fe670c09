// Rules that the files of the demo page keep.
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";

const directory = new URL("../../../demo/", import.meta.url);
const served = readdirSync(directory).filter((name) => /\.(html|css|js|svg)$/.test(name));
const read = (name: string) => readFileSync(new URL(name, directory), "utf8");

test("it is small", () => {
  const bytes = served.reduce((sum, name) => sum + Buffer.byteLength(read(name)), 0);
  expect(bytes).toBeGreaterThan(10_000);
  expect(bytes).toBeLessThan(64 * 1024);
});

test("no module is long", () => {
  for (const name of served.filter((name) => name.endsWith(".js"))) {
    expect(read(name).split("\n").length, name).toBeLessThanOrEqual(400);
  }
});

test("nothing is inline, nothing comes from elsewhere, and data is never markup", () => {
  expect(served).toContain("index.html");
  for (const name of served) {
    const text = read(name).replaceAll("http://www.w3.org/2000/svg", "");
    expect(text, name).not.toMatch(/https?:\/\/|\bstyle=|<script>|\son[a-z]+="|@import/);
    expect(text, name).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(/);
  }
});

test("what counts does not use the SDK, nor anything else", () => {
  expect(read("counter.js")).not.toMatch(/\bimport\s*[{*('"a-z]|fetch|WebSocket/);
});

test("every element that the modules ask for is there", () => {
  const page = read("index.html");
  const asked = served.flatMap((name) =>
    [...read(name).matchAll(/byId\("([\w-]+)"\)/g)].map((match) => match[1]),
  );
  expect(asked.length).toBeGreaterThan(20);
  for (const id of asked) expect(page).toContain(`id="${id}"`);
  for (const id of page.matchAll(/ (?:for|aria-labelledby|href)="#?([\w-]+)"/g))
    expect(page).toContain(`id="${id[1]}"`);
});
