// What is published: order, repeats, refusals, bounds, and a store.
import { expect, test, vi } from "vitest";
import type { OutboxEntry, OutboxStore } from "../../src/types.js";
import type { Publish, WireError } from "../../src/wire/frames.js";
import { open, outcome, type Peer, pass, settle, start, virtual, type World } from "../support/net.js";

virtual();

const text = (p: Publish) => new TextDecoder().decode(p.messages?.[0]?.payload);
const texts = (peer: Peer) => peer.take("publish").map(text);
const error = (code: string, more: Partial<WireError> = {}) => ({ code, message: code, ...more });

/** Answers those that were sent and not answered, from the front. */
function answer(peer: Peer, ...errors: (Partial<WireError> | undefined)[]): void {
  for (const e of errors) {
    const p = peer.unread.shift()?.publish;
    if (!p) throw new Error("nothing was published");
    const ref = p.ref!;
    peer.say({ published: { term: "t", results: [e ? { ref, error: e } : { ref, offset: 100 + ref }] } });
  }
}

/** Publishes without waiting, and keeps the outcomes. */
function publish({ client }: World, ...what: string[]) {
  return what.map((w) => client.publish("a.b", w).catch((e) => `error ${e.code}`));
}

test("publishes in order, up to the limit, and what is answered makes room", async () => {
  const w = await open();
  const done = publish(w, "1", "2", "3", "4", "5", "6");
  expect(w.peer.unread.map((f) => text(f.publish!))).toEqual(["1", "2", "3", "4"]);
  answer(w.peer, undefined, undefined);
  expect(await done[0]).toMatchObject({ topic: "a.b", position: "pt-101", duplicate: false, stored: true });
  expect(texts(w.peer)).toEqual(["3", "4", "5", "6"]);
});

test("says all that can be said of a message", async () => {
  const { client, peer } = await open();
  void client.publish(
    "t",
    { a: 1 },
    { id: "i", key: "k", headers: { x: "1", y: "2" }, ephemeral: true, expires: 5000 },
  );
  void client.publish("t", "x", { contentType: "text/html", expires: new Date(2_000_000_000_000) });
  void client.publish("t", Uint8Array.of(1, 2).buffer);
  const bytes = Uint8Array.of(3);
  void client.publish("t", bytes);
  bytes[0] = 9; // whose buffer is used again
  const sent = peer.take("publish");
  expect(sent.map((p) => p.messages?.[0])).toMatchObject([
    {
      topic: "t",
      id: "i",
      key: "k",
      headers: [
        { name: "x", value: "1" },
        { name: "y", value: "2" },
      ],
      ephemeral: true,
      contentType: "application/json",
      expiresAt: 1_700_000_005_000_000,
    },
    { contentType: "text/html", expiresAt: 2_000_000_000_000_000 },
    { contentType: "", payload: Uint8Array.of(1, 2), expiresAt: 0 },
    { contentType: "", payload: Uint8Array.of(3) },
  ]);
  expect(text(sent[0]!)).toBe('{"a":1}');
  const ids = sent.map((p) => p.messages![0]!.id!);
  expect(new Set(ids).size).toBe(4);
  for (const id of ids) expect(id.length).toBeGreaterThan(0);
  expect(sent.map((p) => [p.resume, p.repeatAgeMs])).toEqual(Array(4).fill([false, 0]));
});

test.each([
  ["null", null],
  ["5", 5],
  ["true", true],
  ["[1]", [1]],
  ["", ""],
])("takes data %s", async (want, data) => {
  const { client, peer } = await open();
  void client.publish("t", data as string);
  expect(texts(peer)).toEqual([want]);
});

test.each([undefined, () => {}])("data of no kind is refused, and stops nothing", async (data) => {
  const { client, peer } = await open();
  await expect(client.publish("t", data as unknown as string)).rejects.toThrow(TypeError);
  void client.publish("t", "x");
  expect(texts(peer)).toEqual(["x"]);
});

test("what is published before the connection is open waits for it", async () => {
  const w = start();
  publish(w, "1", "2");
  await settle();
  w.net.last.open();
  expect(texts(w.net.last)).toEqual([]);
  w.net.last.welcome();
  expect(texts(w.net.last)).toEqual(["1", "2"]);
});

test("after a lost connection what is not answered is repeated in order, with its id and age, before what is new", async () => {
  const w = await open();
  const done = publish(w, "1", "2", "3", "4", "5");
  const first = w.peer.unread.map((f) => f.publish!);
  answer(w.peer, undefined);
  await pass(300);
  w.peer.end();
  publish(w, "6");
  await pass(500);
  w.net.last.welcome();
  const again = w.net.last.unread.map((f) => f.publish!);
  expect(again.map(text)).toEqual(["2", "3", "4", "5"]);
  expect(again.map((p) => p.repeatAgeMs)).toEqual([800, 800, 800, 800]);
  expect(again.map((p) => p.resume)).toEqual([false, false, false, false]);
  expect(again.map((p) => p.messages![0]!.id).slice(0, 3)).toEqual(
    first.slice(1).map((p) => p.messages![0]!.id),
  );
  expect(new Set([...first, ...again].map((p) => p.ref)).size).toBe(8);
  w.net.last.say({
    published: { term: "t", results: [{ ref: again[0]!.ref!, offset: 7, duplicate: true }] },
  });
  expect(await done[1]).toMatchObject({ position: "pt-7", duplicate: true, stored: true });
  expect(texts(w.net.last).at(-1)).toBe("6");
});

test("the age of a repeat counts from when it was sent first, not from when it was published", async () => {
  const w = start({ timeout: 1e9 });
  publish(w, "1");
  await pass(3_600_000);
  w.net.last.welcome().end();
  await pass(500);
  w.net.last.welcome();
  expect(w.net.last.take("publish")[0]?.repeatAgeMs).toBe(500);
});

test("the age of a repeat is above 0, also if the clock was set back", async () => {
  const w = await open();
  publish(w, "1");
  w.peer.end();
  vi.setSystemTime(Date.now() - 3_600_000);
  await pass(500);
  w.net.last.welcome();
  expect(w.client.state).toBe("open");
  expect(w.net.last.take("publish")[0]?.repeatAgeMs).toBeGreaterThan(0);
});

test("after a retryable refusal all from that one on is repeated, with resume", async () => {
  const w = await open();
  const done = publish(w, "1", "2", "3", "4", "5");
  answer(w.peer, undefined, error("storage_full", { retryable: true, retryAfterMs: 4000 }));
  expect(w.peer.unread.length).toBe(3); // nothing new meanwhile
  answer(w.peer, ...Array(2).fill(error("out_of_order", { retryable: true })));
  await pass(10_000);
  expect(w.peer.unread.length).toBe(1); // an answer is due
  answer(w.peer, error("out_of_order", { retryable: true }));
  publish(w, "6");
  await pass(3999);
  expect(w.peer.unread.length).toBe(0);
  await pass(1);
  const again = w.peer.unread.map((f) => f.publish!);
  expect(again.map(text)).toEqual(["2", "3", "4", "5"]);
  expect(again.map((p) => p.resume)).toEqual([true, false, false, false]);
  expect(again.map((p) => p.repeatAgeMs! > 0)).toEqual([true, true, true, true]);
  answer(w.peer, undefined, undefined, undefined, undefined, undefined);
  expect(await Promise.all(done)).not.toContain("pending");
});

test("while a refusal is waited out nothing new is sent", async () => {
  const w = await open();
  publish(w, "1");
  answer(w.peer, error("overloaded", { retryable: true }));
  publish(w, "2");
  w.peer.say({ ping: { seq: 1 } });
  expect(texts(w.peer)).toEqual([]);
  await pass(500);
  expect(texts(w.peer)).toEqual(["1", "2"]);
});

test("refusals in a row wait longer and longer, and one success makes the wait short", async () => {
  vi.mocked(Math.random).mockReturnValue(0.999999);
  const w = await open({}, { pingIntervalMs: 1e9 });
  publish(w, "1");
  const wait = async () => {
    answer(w.peer, error("overloaded", { retryable: true }));
    const before = Date.now();
    while (!w.peer.unread.length) await vi.advanceTimersToNextTimerAsync();
    return Math.round((Date.now() - before) / 1000);
  };
  expect([await wait(), await wait(), await wait()]).toEqual([1, 2, 4]);
  answer(w.peer, undefined);
  publish(w, "2");
  expect(await wait()).toBe(1);
});

test("a wait that the connection does not outlive is no wait for the next one", async () => {
  const w = await open();
  publish(w, "1", "2");
  answer(
    w.peer,
    error("storage_full", { retryable: true, retryAfterMs: 50_000 }),
    error("out_of_order", { retryable: true }),
  );
  w.peer.end();
  await pass(500);
  w.net.last.welcome();
  expect(w.net.last.take("publish").map((p) => [text(p), p.resume])).toEqual([
    ["1", false],
    ["2", false],
  ]);
  await pass(30_000);
  w.net.last.say({ ping: { seq: 1 } });
  await pass(19_000);
  expect(w.net.last.take("publish")).toEqual([]);
  const { ref } = w.net.last.sent.flatMap((f) => f.publish ?? [])[0]!;
  w.net.last.say({
    published: {
      results: [
        { ref: ref! + 1, error: error("x", { retryable: true }) },
        { ref, error: error("x", { retryable: true }) },
      ],
    },
  });
  await pass(1000);
  expect(w.net.last.take("publish").length).toBe(2);
});

test.each(["id_conflict", "repeat_too_old", "invalid_topic", "forbidden"])(
  "%s rejects that message alone",
  async (code) => {
    const w = await open();
    const done = publish(w, "1", "2");
    answer(w.peer, error(code), undefined);
    expect(await done[0]).toBe(`error ${code}`);
    expect(await done[1]).toMatchObject({ stored: true });
  },
);

test("an error that refuses a whole frame rejects its message", async () => {
  const w = await open();
  const done = publish(w, "1", "2");
  const { ref } = w.peer.unread.shift()!.publish!;
  w.peer.say({ error: { ref, code: "bad_request", message: "x", request: "publish" } });
  answer(w.peer, undefined);
  expect(await done[0]).toBe("error bad_request");
  expect(await done[1]).toMatchObject({ stored: true });
});

test("an ephemeral message is answered without a place", async () => {
  const { client, peer } = await open();
  const done = client.publish("a", "x", { ephemeral: true });
  answer2(peer);
  expect(await done).toMatchObject({ position: "", duplicate: false, stored: false });
});

function answer2(peer: Peer): void {
  const ref = peer.take("publish")[0]!.ref!;
  peer.say({ published: { results: [{ ref }] } });
}

test("what is too large is refused here, where it would cost the connection", async () => {
  const w = await open({}, { limits: { frameBytes: 3000, inFlight: 10 } });
  const big = w.client.publish("a", "x".repeat(3000));
  const long = w.client.publish("a", "x", { headers: { h: "x".repeat(3000) } });
  const fits = w.client.publish("a", "x".repeat(1000));
  expect(await outcome(big)).toBe("error payload_too_large");
  expect(await outcome(long)).toBe("error payload_too_large");
  expect(w.peer.unread.length).toBe(1);
  answer(w.peer, undefined);
  expect(await fits).toMatchObject({ stored: true });
});

test.each([
  [{ messages: 3 }, "x"],
  [{ bytes: 400 }, "x".repeat(100)],
])("the outbox has bounds: %j", async (outbox, data) => {
  const w = await open({ outbox });
  const done = publish(w, data, data, data);
  const late = w.client.publish("a", data);
  expect(await outcome(late)).toBe("error outbox_full");
  await expect(late).rejects.toMatchObject({ retryable: true });
  answer(w.peer, undefined);
  await done[0];
  expect(await outcome(w.client.publish("a", data))).toBe("pending");
});

test("bytes that were answered make room", async () => {
  const w = await open({ outbox: { bytes: 2000 } });
  for (let n = 0; n < 20; n++) {
    publish(w, "x".repeat(300), "y".repeat(300));
    answer(w.peer, undefined, undefined);
  }
});

test("what is published is as it was then, whatever becomes of its memory", async () => {
  const { net, client } = start();
  const bytes = Uint8Array.of(1, 2);
  void client.publish("a", bytes);
  void client.publish("a", bytes.buffer);
  bytes.fill(9);
  await settle();
  const sent = net.last.welcome().take("publish");
  expect(sent.map((p) => p.messages?.[0]?.payload)).toEqual([Uint8Array.of(1, 2), Uint8Array.of(1, 2)]);
});

test("what was given up in flight counts until it is answered", async () => {
  const w = await open();
  const stop = new AbortController();
  void w.client.publish("a", "0", { signal: stop.signal }).catch(() => {});
  publish(w, "1", "2", "3");
  stop.abort();
  publish(w, "4");
  expect(w.peer.unread.length).toBe(4);
  answer(w.peer, undefined);
  expect(w.peer.unread.length).toBe(4);
});

test("one message that is larger than the outbox goes alone", async () => {
  const w = await open({ outbox: { bytes: 10 } });
  publish(w, "x".repeat(100));
  expect(w.peer.unread.length).toBe(1);
});

test("an AbortSignal in each phase", async () => {
  const w = await open({}, { limits: { frameBytes: 9000, inFlight: 2 } });
  const signals = [0, 1, 2, 3, 4].map(() => new AbortController());
  const done = signals.map(({ signal }, i) => w.client.publish("a", `${i}`, { signal }).catch((e) => e.name));
  const [, , , , before] = signals;
  before!.abort();
  signals[1]!.abort(); // in flight
  signals[2]!.abort(); // not sent
  expect(await Promise.all([done[4], done[1], done[2]])).toEqual(["AbortError", "AbortError", "AbortError"]);
  expect(w.peer.unread.map((f) => text(f.publish!))).toEqual(["0", "1"]);
  answer(w.peer, undefined, undefined);
  expect(texts(w.peer)).toEqual(["3"]);
  signals[0]!.abort(); // answered
  expect(await done[0]).toMatchObject({ stored: true });
  const already = w.client.publish("a", "5", { signal: AbortSignal.abort() });
  await expect(already).rejects.toMatchObject({ name: "AbortError" });
  w.peer.end();
  signals[3]!.abort(); // sent, and without a connection
  expect(await done[3]).toBe("AbortError");
  await pass(500);
  w.net.last.welcome();
  expect(texts(w.net.last)).toEqual([]);
});

test("an abort while a refusal is waited out does not lose the resume", async () => {
  const w = await open();
  const gone = new AbortController();
  const first = w.client.publish("a", "1", { signal: gone.signal }).catch((e) => e.name);
  publish(w, "2");
  answer(w.peer, error("storage_full", { retryable: true }), error("out_of_order", { retryable: true }));
  gone.abort();
  expect(await first).toBe("AbortError");
  await pass(500);
  expect(w.peer.take("publish").map((p) => [text(p), p.resume])).toEqual([["2", true]]);
});

test("a signal for many messages does not hold on to them", async () => {
  const { signal } = new AbortController();
  const [add, remove] = [vi.spyOn(signal, "addEventListener"), vi.spyOn(signal, "removeEventListener")];
  const w = await open();
  for (let n = 0; n < 20; n++) {
    const done = w.client.publish("a", "x", { signal }).catch(() => {});
    answer(w.peer, n % 2 ? error("forbidden") : undefined);
    await done;
  }
  await settle();
  expect(remove.mock.calls.length).toBe(add.mock.calls.length);
  expect(add.mock.calls.length).toBe(20);
});

test.each([new Date(-5), Number.POSITIVE_INFINITY])(
  "what cannot be written is refused, and stops nobody else: it expires at %s",
  async (expires) => {
    const w = await open();
    const bad = w.client.publish("a", "bad", { expires }).catch((e) => `error ${e.code}`);
    const good = publish(w, "good");
    await settle();
    expect(w.client.state).toBe("open");
    expect(await outcome(bad)).toBe("error invalid_message");
    expect(texts(w.peer)).toEqual(["good"]);
    expect(await outcome(good[0]!)).toBe("pending");
  },
);

/** A store as a page keeps it. */
class Store implements OutboxStore {
  readonly kept: OutboxEntry[] = [];
  readonly said: string[] = [];
  load = async () => [...this.kept];
  add(e: OutboxEntry): void {
    this.kept.push(e);
    this.said.push(`+${new TextDecoder().decode(e.payload)}`);
  }
  remove(e: OutboxEntry): void {
    const at = this.kept.findIndex((k) => k.id === e.id);
    if (at >= 0) this.kept.splice(at, 1);
    this.said.push(`-${new TextDecoder().decode(e.payload)}`);
  }
}

const kept = (id: string, more: Partial<OutboxEntry> = {}): OutboxEntry => ({
  topic: "a",
  id,
  payload: new TextEncoder().encode(id),
  first: Date.now() - 60_000,
  ...more,
});

test("a store keeps what is not answered, and gives it back first", async () => {
  const store = new Store();
  store.kept.push(kept("old1"), kept("old2"));
  const w = start({ outbox: { store } });
  publish(w, "new");
  await settle();
  w.net.last.welcome();
  const sent = w.net.last.unread.map((f) => f.publish!);
  expect(sent.map(text)).toEqual(["old1", "old2", "new"]);
  expect(sent.map((p) => p.repeatAgeMs)).toEqual([60_000, 60_000, 0]);
  answer(w.net.last, undefined, error("forbidden"), undefined);
  await settle();
  expect(store.said).toEqual(["+new", "-old1", "-old2", "-new"]);
  expect(store.kept).toEqual([]);
});

test("nothing is sent before the store has given what it has, and a load that fails stops nothing", async () => {
  let fail: (e: Error) => void = () => {};
  const store = Object.assign(new Store(), {
    load: () => new Promise<OutboxEntry[]>((_, reject) => (fail = reject)),
  });
  const w = start({ outbox: { store } });
  const told: unknown[] = [];
  w.client.on("refused", (e) => told.push(e.error.message));
  publish(w, "new");
  await settle();
  w.net.last.welcome();
  expect(texts(w.net.last)).toEqual([]);
  fail(new Error("disk"));
  await settle();
  expect(texts(w.net.last)).toEqual(["new"]);
  expect(told).toEqual(["disk"]);
});

test("what a store has spoilt is told and removed, and stops nothing else", async () => {
  const store = new Store();
  const removed: string[] = [];
  store.remove = (e) => void removed.push(e.id);
  const bad = [{ payload: undefined }, { payload: "text" }, { first: -1 }, { topic: Symbol("t") }];
  store.kept.push(kept("old1"), ...bad.map((more, i) => kept(`bad${i}`, more as never)), kept("old2"));
  const w = start({ outbox: { store } });
  const told: unknown[] = [];
  w.client.on("refused", (e) => told.push([e.id, (e.error as { code?: string }).code]));
  publish(w, "new");
  await settle();
  expect(w.states).toEqual(["connecting"]);
  w.net.last.welcome();
  expect(texts(w.net.last)).toEqual(["old1", "old2", "new"]);
  const ids = bad.map((_, i) => `bad${i}`).reverse();
  expect(told).toEqual(ids.map((id) => [id, "invalid_message"]));
  expect(removed).toEqual(ids);
  expect(w.client.state).toBe("open");
});

test("an option that is undefined is as good as none", async () => {
  const { client, peer } = await open({ token: undefined, outbox: { messages: undefined } });
  void client.publish("t", { a: 1 }, { id: undefined, contentType: undefined, expires: undefined });
  const [message] = peer.take("publish")[0]!.messages!;
  expect(message).toMatchObject({ contentType: "application/json", expiresAt: 0 });
  expect(message?.id).toMatch(/^\d+(-\d+){3}$/);
});

test("a message of an earlier page that is refused is told", async () => {
  const store = new Store();
  store.kept.push(kept("old"));
  const w = start({ outbox: { store } });
  const told: unknown[] = [];
  w.client.on("refused", (e) => told.push([e.id, (e.error as { code?: string }).code]));
  await settle();
  answer(w.net.last.welcome(), error("repeat_too_old"));
  await settle();
  expect(told).toEqual([["old", "repeat_too_old"]]);
});

test("a store keeps no ephemeral message, and what a client leaves behind when it is closed", async () => {
  const store = new Store();
  const w = await open({ outbox: { store } });
  void w.client.publish("a", "soft", { ephemeral: true }).catch(() => {});
  const done = publish(w, "1");
  const closing = w.client.close({ timeout: 0 });
  await pass(1);
  await closing;
  expect(await done[0]).toBe("error outcome_unknown");
  expect(store.kept.map((e) => e.id.length > 0)).toEqual([true]);
  expect(store.said).toEqual(["+1"]);
});

test("a store that fails stops nothing", async () => {
  const store = new Store();
  store.add = () => {
    throw new Error("quota");
  };
  store.remove = () => {
    throw new Error("quota");
  };
  const w = await open({ outbox: { store } });
  const done = publish(w, "1", "2");
  await settle();
  answer(w.peer, undefined, undefined);
  expect(w.client.state).toBe("open");
  expect(await done[0]).toMatchObject({ stored: true });
  expect(await done[1]).toMatchObject({ stored: true });
});

test("a store that is loaded after close changes nothing", async () => {
  let give: (e: OutboxEntry[]) => void = () => {};
  const store = Object.assign(new Store(), {
    load: () => new Promise<OutboxEntry[]>((resolve) => (give = resolve)),
  });
  const w = start({ outbox: { store } });
  await settle();
  w.net.last.welcome();
  await w.client.close();
  give([kept("x")]);
  await settle();
  expect(w.net.last.sent.filter((f) => f.publish)).toEqual([]);
});

test("close waits for the answers, takes nothing new, and is patient so long", async () => {
  const w = await open();
  const done = publish(w, "1", "2", "3", "4", "5");
  const closing = w.client.close({ timeout: 3000 });
  expect(await outcome(w.client.publish("a", "late"))).toBe("error closed");
  answer(w.peer, undefined, undefined, undefined, undefined);
  expect(await outcome(closing)).toBe("pending");
  expect(w.client.state).toBe("open");
  await pass(2000);
  answer(w.peer, undefined);
  expect(await outcome(closing)).toBe(undefined);
  expect(w.client.state).toBe("closed");
  expect(await Promise.all(done)).toHaveLength(5);

  const v = await open({}, { limits: { frameBytes: 9000, inFlight: 1 } });
  const unsure = publish(v, "1", "2");
  const end = v.client.close({ timeout: 3000 });
  await pass(2999);
  expect(await outcome(end)).toBe("pending");
  await pass(1);
  expect(await outcome(end)).toBe(undefined);
  expect(await Promise.all(unsure)).toEqual(["error outcome_unknown", "error closed"]);
});

test("close waits over a lost connection", async () => {
  const w = await open();
  const done = publish(w, "1");
  const closing = w.client.close();
  w.peer.end();
  await pass(500);
  answer(w.net.last.welcome(), undefined);
  expect(await done[0]).toMatchObject({ stored: true });
  expect(await outcome(closing)).toBe(undefined);
  expect(vi.getTimerCount()).toBe(0);
});
