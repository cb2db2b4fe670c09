import { expect, test, vi } from "vitest";
import { openStore } from "../../src/idb/index.js";
import type { OutboxEntry } from "../../src/index.js";
import { fresh, locks, orders, read, shop, warnings } from "./support.js";

fresh();

const entry = (id: string): OutboxEntry => ({ topic: "t", id, payload: new Uint8Array([1, 2]), first: 1 });
const ids = (entries: OutboxEntry[]) => entries.map((e) => e.id);
const kept = async (version = 9) => ids(await read(await openStore("shop", { version }), "tidewire.outbox"));

/** A version of the database that was made without openStore. */
function plain(version: number): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("shop", version);
    request.onupgradeneeded = () => request.result.createObjectStore("old");
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

test("the versions are the app's", async () => {
  const seen: number[] = [];
  const upgrade = (db: IDBDatabase, old: number, tx: IDBTransaction) => {
    seen.push(old);
    if (old < 1) db.createObjectStore("a");
    if (old < 3) db.createObjectStore("b").put(tx.mode, "mode");
  };
  await (await openStore("shop", { upgrade })).close();
  const store = await openStore("shop", {
    version: 3,
    upgrade: (db, old, tx) => old < 3 && seen.push(old) && db.createObjectStore("c") && tx,
  });
  expect(seen).toEqual([0, 1]);
  expect(store.db.version).toBe(3);
  expect([...store.db.objectStoreNames]).toEqual(["a", "b", "c", "tidewire.outbox", "tidewire.positions"]);
});

test("a database from before says that its version must be raised", async () => {
  (await plain(4)).close();
  await expect(openStore("shop", { version: 4 })).rejects.toMatchObject({
    code: "store_version",
    message: expect.stringContaining("raise `version` above 4"),
  });
  const store = await openStore("shop", { version: 5 });
  expect([...store.db.objectStoreNames]).toEqual(["old", "tidewire.outbox", "tidewire.positions"]);
  await store.close();
  await expect(openStore("shop", { version: 4 })).rejects.toMatchObject({ code: "store_version" });
});

test.each([
  [
    "throws",
    () => {
      throw new Error("no");
    },
  ],
  [
    "rejects",
    async () => {
      await Promise.resolve();
      throw new Error("no");
    },
  ],
])("an upgrade that %s changes nothing", async (_, upgrade) => {
  await expect(openStore("shop", { upgrade })).rejects.toThrow("no");
  expect(await indexedDB.databases()).toEqual([]);
});

test("an upgrade that deletes everything leaves what the client needs", async () => {
  const store = await openStore("shop", {
    upgrade: (db) => [...db.objectStoreNames].map((n) => db.deleteObjectStore(n)),
  });
  expect(store.db.objectStoreNames.contains("tidewire.outbox")).toBe(true);
});

test("another page can upgrade; then this one says that it must be loaded anew", async () => {
  const old = await shop();
  const position = old.position("p");
  await position.save("p1");
  const upgraded = await shop({ version: 2, upgrade: () => {} });
  expect(upgraded.db.version).toBe(2);
  await expect(position.load()).rejects.toMatchObject({ code: "store_version" });
  await position.save("p2");
  await position.save("p3");
  expect(warnings).toEqual([
    expect.stringContaining("the position p is not kept over a reload: TidewireError: "),
  ]);
  expect(await upgraded.position("p").load()).toBe("p1");
});

test("a database that was deleted is made again", async () => {
  const store = await shop();
  await store.position("p").save("p1");
  const before = store.db;
  await new Promise((resolve) => {
    indexedDB.deleteDatabase("shop").onsuccess = resolve;
  });
  expect(await store.position("p").load()).toBeUndefined();
  expect(store.db).not.toBe(before);
  expect(await orders(store)).toEqual([]);
});

test("a closed store says so", async () => {
  const store = await shop();
  await store.close();
  await expect(store.position("p").load()).rejects.toMatchObject({ code: "closed" });
});

test("a tab that does not let go of an older version is named in the console", async () => {
  const other = await plain(1);
  const opening = openStore("shop", { version: 2 });
  await vi.waitUntil(() => warnings.length);
  expect(warnings[0]).toContain("another tab holds an old version of shop open");
  other.close();
  await opening;
});

test("positions stay", async () => {
  const store = await shop();
  const position = store.position("chat");
  expect(await position.load()).toBeUndefined();
  await position.save("p1-1");
  await position.save("p1-2");
  await store.position("other").save("p1-9");
  expect(await (await shop()).position("chat").load()).toBe("p1-2");
});

test("a page gets what pages that are gone have left, page by page, in order, with the same ids", async () => {
  vi.useFakeTimers({ toFake: ["Date"], now: 1_000 });
  const a = await shop();
  expect(await a.outbox.load()).toEqual([]);
  vi.setSystemTime(2_000);
  const b = await shop();
  await b.outbox.load();
  const first = [..."123"].map((n) => entry(`b${n}`));
  for (const e of first) b.outbox.add(e);
  for (const n of "123") a.outbox.add(entry(`a${n}`));
  b.outbox.remove(first[1]!);
  locks.die();

  vi.setSystemTime(3_000);
  const c = await shop();
  const left = await c.outbox.load();
  expect(ids(left)).toEqual(["a1", "a2", "a3", "b1", "b3"]);
  expect(left[0]).toEqual(entry("a1"));
  for (const e of left.slice(0, 4)) c.outbox.remove(e);
  c.outbox.add(entry("c1"));
  await vi.waitUntil(async () => (await kept()).length === 2);
  expect(await kept()).toEqual(["b3", "c1"]);
  vi.useRealTimers();
});

test("what a living page has is its own, and so is what it has taken over", async () => {
  vi.useFakeTimers({ toFake: ["Date"], now: 1_000 });
  const a = await shop();
  await a.outbox.load();
  a.outbox.add(entry("a1"));
  locks.die();
  vi.setSystemTime(2_000);
  const b = await shop();
  expect(ids(await b.outbox.load())).toEqual(["a1"]);
  b.outbox.add(entry("b1"));
  const c = await shop();
  expect(await c.outbox.load()).toEqual([]);
  locks.die();
  expect(ids(await (await shop()).outbox.load())).toEqual(["a1", "b1"]);
  vi.useRealTimers();
});

test("without Web Locks a page takes everything, and says so once", async () => {
  vi.stubGlobal("navigator", {});
  const a = await shop();
  await a.outbox.load();
  a.outbox.add(entry("a1"));
  const b = await shop();
  expect(ids(await b.outbox.load())).toEqual(["a1"]);
  expect(warnings.filter((w) => w.includes("no Web Locks here"))).toHaveLength(2);
});

test("what cannot be kept is said once, and nothing else happens", async () => {
  const store = await shop();
  await store.outbox.load();
  const put = vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(() => {
    throw new DOMException("full", "QuotaExceededError");
  });
  store.outbox.add(entry("a1"));
  await Promise.resolve();
  store.outbox.add(entry("a2"));
  expect(await store.kept()).toBe(false);
  put.mockRestore();
  store.outbox.add(entry("a3"));
  expect(await store.kept()).toBe(true);
  expect(ids(await read(store, "tidewire.outbox"))).toEqual(["a3"]);
  expect(warnings).toEqual([expect.stringContaining("not kept over a reload: QuotaExceededError: full")]);
});

test("an outbox outlives a database that cannot be opened for a while", async () => {
  const store = await shop();
  await store.outbox.load();
  store.db.onclose?.(new Event("close"));
  const open = vi.spyOn(indexedDB, "open").mockImplementation(() => {
    throw new DOMException("no", "SecurityError");
  });
  store.outbox.add(entry("a1"));
  await vi.waitUntil(() => warnings.length);
  open.mockRestore();
  store.outbox.add(entry("a2"));
  await vi.waitUntil(async () => (await kept(1)).length);
  expect(await kept(1)).toEqual(["a2"]);
});

test("the console can be left alone", async () => {
  vi.stubGlobal("navigator", {});
  const store = await shop({ log: false });
  await store.outbox.load();
  expect(warnings).toEqual([]);
});
