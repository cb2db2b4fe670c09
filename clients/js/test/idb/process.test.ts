import { expect, test, vi } from "vitest";
import type { ProcessHandler, Processing, Store } from "../../src/idb/index.js";
import { TidewireError } from "../../src/index.js";
import { FakeClient, fresh, locks, orders, read, shop, warnings } from "./support.js";

fresh();

const add: ProcessHandler = async (tx, m) => {
  tx.objectStore("orders").add(m.data);
};

function start(store: Store, client: FakeClient, handler: ProcessHandler = add): Processing {
  return store.process(
    client.client,
    "orders.>",
    { name: "orders", stores: "orders", from: "earliest" },
    handler,
  );
}

const numbers = (n: number, from = 1) => Array.from({ length: n }, (_, i) => from + i);

test("writes of the app and the position go together, and a later page goes on behind them", async () => {
  const client = new FakeClient();
  client.publish(...numbers(1000));
  const store = await shop();
  const first = start(store, client);
  await vi.waitUntil(() => first.position === "p1000");
  expect(await orders(store)).toEqual(numbers(1000));
  expect(await read(store, "tidewire.positions")).toEqual(["p1000"]);
  await first.close();

  client.publish(...numbers(10, 1001));
  const second = start(await shop(), client);
  await vi.waitUntil(() => second.position === "p1010");
  expect(client.began).toEqual(["p0", "p1000"]);
  expect(await orders(store)).toEqual(numbers(1010));
});

test("the place where a subscription began is kept before anything has come", async () => {
  const client = new FakeClient();
  client.publish(1, 2, 3);
  const store = await shop();
  const first = store.process(client.client, "orders.>", { name: "orders", stores: "orders" }, add);
  await vi.waitUntil(() => first.position === "p3");
  await first.close();
  client.publish(4);
  const second = store.process(client.client, "orders.>", { name: "orders", stores: "orders" }, add);
  await vi.waitUntil(() => second.position === "p4");
  expect(await orders(store)).toEqual([4]);
});

test("a handler that throws undoes its writes and ends it; what stood before is applied", async () => {
  const client = new FakeClient();
  client.publish(...numbers(20));
  const store = await shop();
  const processing = start(store, client, async (tx, m) => {
    tx.objectStore("orders").add(m.data);
    if (m.data === 13) throw new Error("thirteen");
  });
  await expect(processing.done).rejects.toThrow("thirteen");
  expect(processing.state).toBe("ended");
  expect(processing.position).toBe("p12");
  expect(await orders(store)).toEqual(numbers(12));
  expect(await read(store, "tidewire.positions")).toEqual(["p12"]);
  expect(client.live.size).toBe(0);
  expect(warnings).toEqual(["tidewire: the processing orders has ended: Error: thirteen"]);
});

test("a request that fails ends it with its own error", async () => {
  const client = new FakeClient();
  client.publish(1, 2, 2);
  const store = await shop();
  const processing = start(store, client, (tx, m) => tx.objectStore("orders").add(m.data, m.data as number));
  await expect(processing.done).rejects.toMatchObject({ name: "ConstraintError" });
  expect(await orders(store)).toEqual([1, 2]);
  expect(processing.position).toBe("p2");
});

test("a handler that answers requests by callbacks has each message for itself", async () => {
  const client = new FakeClient();
  client.publish(...numbers(50));
  const store = await shop();
  const processing = start(store, client, (tx, m) => {
    const sum = tx.objectStore("orders");
    const before = sum.get("sum");
    before.onsuccess = () => {
      const again = sum.get("sum");
      again.onsuccess = () => sum.put((again.result ?? 0) + (m.data as number), "sum");
    };
  });
  await vi.waitUntil(() => processing.position === "p50");
  expect(await orders(store)).toEqual([1275]);
});

test("a handler that awaits its requests may share the transaction", async () => {
  const client = new FakeClient();
  client.publish(...numbers(500));
  const store = await shop();
  let transactions = 0;
  let last: IDBTransaction | undefined;
  const processing = start(store, client, async (tx, m) => {
    if (last !== tx) transactions++;
    last = tx;
    const sum = tx.objectStore("orders");
    const before = await new Promise<number>((resolve) => {
      const request = sum.get("sum");
      request.onsuccess = () => resolve(request.result ?? 0);
    });
    sum.put(before + (m.data as number), "sum");
  });
  await vi.waitUntil(() => processing.position === "p500");
  expect(await orders(store)).toEqual([125250]);
  expect(transactions).toBeLessThan(20);
});

test("of two pages one works; the other goes on when it is gone", async () => {
  const client = new FakeClient();
  client.publish(1, 2);
  const store = await shop();
  const first = start(store, client);
  await vi.waitUntil(() => first.position === "p2");
  const other = await shop();
  const second = start(other, client);
  client.publish(3);
  await vi.waitUntil(() => first.position === "p3");
  expect(second.state).toBe("waiting");
  expect(client.live.size).toBe(1);
  await first.close();
  client.publish(4);
  await vi.waitUntil(() => second.position === "p4");
  expect(await orders(store)).toEqual([1, 2, 3, 4]);
});

test("a page that lost its lock in its sleep applies nothing, and goes on from where the other is", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  const client = new FakeClient();
  client.publish(1, 2);
  const store = await shop();
  const options = { name: "orders", stores: "orders", from: "earliest" };
  vi.stubGlobal("navigator", {});
  const first = store.process(client.client, "orders.>", options, add);
  await vi.waitUntil(() => first.position === "p2");
  const second = (await shop()).process(client.client, "orders.>", options, add);
  for (const number of numbers(20, 3)) {
    client.publish(number);
    await vi.waitUntil(async () => (await orders(store)).length === number);
    await vi.advanceTimersByTimeAsync(2_000);
  }
  expect(await orders(store)).toEqual(numbers(22));
  expect(client.began.length).toBeGreaterThan(2);
  expect(warnings.filter((text) => text.includes("no Web Locks")).length).toBeGreaterThan(0);
  await Promise.all([first.close(), second.close()]);
  vi.useRealTimers();
});

test("what the broker ends, ends with its error; a closed client ends it without one", async () => {
  const client = new FakeClient();
  const store = await shop();
  const refused = start(store, client);
  await vi.waitUntil(() => client.live.size === 1);
  for (const sub of client.live) sub.end(new TidewireError("forbidden", "no"));
  await expect(refused.done).rejects.toMatchObject({ code: "forbidden" });

  const working = start(store, client);
  const waiting = start(store, client);
  await vi.waitUntil(() => client.live.size === 1);
  client.close();
  await working.done;
  await waiting.done;
  expect(locks.names).toEqual([]);
});

test("a signal ends it, also while it waits", async () => {
  const client = new FakeClient();
  const store = await shop();
  const working = start(store, client);
  await vi.waitUntil(() => client.live.size === 1);
  const end = new AbortController();
  const options = { name: "orders", stores: "orders", signal: end.signal };
  const waiting = store.process(client.client, "orders.>", options, add);
  end.abort();
  await waiting.done;
  await working.close();
  expect(client.live.size).toBe(0);
});
