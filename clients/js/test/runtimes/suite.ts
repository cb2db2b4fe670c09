// What must hold in every runtime: Node.js, Deno and Bun run this same file, which
// scripts/runtimes.mjs has bundled. It knows nothing of theirs but `node:test` and
// `node:assert`, which all three have. The package is imported as it is installed.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import type { ConnectOptions, Message } from "../../src/index.js";

const url = env("TIDEWIRE_URL");
const timeout = 20_000;

let sdk: typeof import("../../src/index.js");
let options: ConnectOptions = {};

function env(name: string): string {
  const value = process.env[name];
  assert.ok(value, `${name} is not set: run this with npm run test:runtimes`);
  return value;
}

/** The runner kills and restarts the broker; a runtime may not be able to start processes. */
async function control(action: "kill" | "restart"): Promise<void> {
  const response = await fetch(`${env("TIDEWIRE_CONTROL")}/${action}`, { method: "POST" });
  assert.equal(response.status, 204, await response.text());
}

/** Names of what a browser has, as far as they can be watched here. */
function watchGlobals(touched: string[]): { names: string[]; restore: () => void } {
  const browser = [
    "window",
    "document",
    "location",
    "localStorage",
    "indexedDB",
    "BroadcastChannel",
    "WebSocket",
  ];
  const before = browser.map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const);
  const watched = before.filter(([, had]) => had?.configurable !== false);
  for (const [name] of watched) {
    const get = () => {
      touched.push(name);
      return undefined;
    };
    Object.defineProperty(globalThis, name, { get, set: get, configurable: true });
  }
  const restore = () => {
    for (const [name, had] of watched) {
      if (had) Object.defineProperty(globalThis, name, had);
      else delete (globalThis as Record<string, unknown>)[name];
    }
  };
  return { names: watched.map(([name]) => name), restore };
}

before(async () => {
  const touched: string[] = [];
  const { names, restore } = watchGlobals(touched);
  try {
    const name = "@tidewire/client";
    sdk = (await import(name)) as typeof sdk;
  } finally {
    restore();
  }
  assert.ok(names.includes("WebSocket") && names.includes("window"), `only ${names} could be watched`);
  assert.deepEqual(touched, [], "what is there in a browser alone must not be touched by an import");
  if (process.env.TIDEWIRE_WS) {
    options = { WebSocket: (await import("ws")).WebSocket };
  }
});

test("publishes, subscribes, and reads what is stored", { timeout }, async () => {
  await using client = sdk.connect(url, options);
  const heard: Message[] = [];
  const subscription = client.subscribe("runtime.first.>", (m) => void heard.push(m));
  await subscription.ready;
  const published = await client.publish(
    "runtime.first.a",
    { text: "grüße" },
    { id: "1", headers: { kind: "test" } },
  );
  assert.equal(published.duplicate, false);
  assert.equal((await client.publish("runtime.first.a", { text: "grüße" }, { id: "1" })).duplicate, true);
  await client.publish("runtime.first.b", new Uint8Array([0, 255]));
  await until(() => heard.length === 2);
  assert.deepEqual(heard[0]?.data, { text: "grüße" });
  assert.equal(heard[0]?.position, published.position);
  assert.deepEqual(heard[0]?.headers, { kind: "test" });
  assert.deepEqual([...(heard[1]?.bytes ?? [])], [0, 255]);

  const stored = await client.history("runtime.first.a", { from: "earliest" });
  assert.deepEqual(
    stored.messages.map((m) => m.data),
    [{ text: "grüße" }],
  );
});

test("a loop goes on where another one has ended", { timeout }, async () => {
  await using client = sdk.connect(url, options);
  for (let n = 0; n < 10; n++) await client.publish("runtime.loop", n);
  let position = "earliest";
  const seen: unknown[] = [];
  for (const upTo of [5, 10]) {
    for await (const m of client.subscribe("runtime.loop", { from: position })) {
      seen.push(m.data);
      position = m.position;
      if (seen.length === upTo) break;
    }
  }
  assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test("nothing is lost or doubled when the broker is killed and comes back", { timeout }, async () => {
  // Asked before each attempt, so the client stays away until the gate is open.
  let gate: Promise<unknown> = Promise.resolve();
  const token = () => gate.then(() => "");
  await using client = sdk.connect(url, { ...options, token });
  const seen: unknown[] = [];
  const states: string[] = [];
  client.on("state", ({ state }) => states.push(state));
  const subscription = client.subscribe("runtime.kill", (m) => void seen.push(m.data));
  await subscription.ready;
  const publish = (from: number, below: number) =>
    Promise.all(numbers(from, below).map((n) => client.publish("runtime.kill", n)));

  await publish(0, 100);
  let open = () => {};
  gate = new Promise<void>((resolve) => {
    open = resolve;
  });
  const unanswered = publish(100, 200);
  await control("kill");
  const meanwhile = publish(200, 300);
  await until(() => client.state !== "open");
  await control("restart");
  for (const n of numbers(1000, 1010)) await publishOverHTTP("runtime.kill", n);
  open();
  await Promise.all([unanswered, meanwhile]);
  await publish(300, 310);
  await until(() => seen.length >= 320);
  const [own, others] = [seen.filter((n) => Number(n) < 1000), seen.filter((n) => Number(n) >= 1000)];
  assert.deepEqual(own, numbers(0, 310));
  assert.deepEqual(others, numbers(1000, 1010), "what others published while this client was away");
  assert.ok(states.includes("waiting"), `states: ${states}`);
});

test("a consumer's jobs are done once each, also what failed at first", { timeout }, async () => {
  await using client = sdk.connect(url, options);
  await Promise.all(numbers(0, 50).map((n) => client.publish("runtime.jobs", n)));
  const done: number[] = [];
  let failed = false;
  const consumer = client.consume(
    "runtime",
    "runtime.jobs",
    (m) => {
      const n = m.json<number>();
      if (n === 7 && !failed) {
        failed = true;
        throw new Error("this once");
      }
      done.push(n);
    },
    { settings: { backoffBaseMs: 10, backoffCapMs: 20 } },
  );
  await until(() => done.length >= 50);
  await consumer.close();
  assert.ok(failed);
  assert.deepEqual(
    [...done].sort((a, b) => a - b),
    numbers(0, 50),
  );
});

test("says what is missing where there is no WebSocket", { timeout }, async () => {
  const had = Object.getOwnPropertyDescriptor(globalThis, "WebSocket");
  Object.defineProperty(globalThis, "WebSocket", { value: undefined, configurable: true });
  try {
    await using client = sdk.connect(url, { log: false });
    const goesOn = new Promise<unknown>((resolve) => {
      client.on(
        "state",
        ({ state, error }) => state === "waiting" && resolve(`it goes on trying after ${error}`),
      );
    });
    const why = await Promise.race([client.ready.catch((error: unknown) => error), goesOn]);
    assert.ok(why instanceof sdk.TidewireError && why.code === "no_websocket", `${why}`);
  } finally {
    if (had) Object.defineProperty(globalThis, "WebSocket", had);
    else delete (globalThis as Record<string, unknown>).WebSocket;
  }
});

async function publishOverHTTP(topic: string, n: number): Promise<void> {
  const headers = { "content-type": "application/json" };
  const response = await fetch(`${url}/v1/topics/${topic}/messages`, {
    method: "POST",
    body: `${n}`,
    headers,
  });
  assert.equal(response.status, 200, await response.text());
}

function numbers(from: number, below: number): number[] {
  return Array.from({ length: below - from }, (_, i) => from + i);
}

/** Waits for a condition; the test's time limit ends it. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((wake) => setTimeout(wake, 5));
}
