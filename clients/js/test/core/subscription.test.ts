// A subscription against the rules of docs/protocol.md.
import { expect, test, vi } from "vitest";
import type { Message, PositionStore, SubscribeOptions, Subscription } from "../../src/types.js";
import type { Deliver, ServerFrame } from "../../src/wire/frames.js";
import { open, outcome, type Peer, pass, settle, start, virtual } from "../support/net.js";
import { type Deep, say } from "../support/wire.js";

virtual();

const record = (offset: number, more = {}) => ({
  topic: "a",
  id: `m${offset}`,
  offset,
  contentType: "text/plain",
  payload: new TextEncoder().encode(`${offset}`),
  ...more,
});

/** A chunk: the range, and the offsets of its messages. */
const chunk = (sub: number, after: number, through: number, offsets: number[], more: Deep<Deliver> = {}) => ({
  deliver: { sub, term: "t", after, through, records: offsets.map((o) => record(o)), ...more },
});

const subscribed = (sub: number, offset: number, more = {}) => ({
  subscribed: { sub, position: `pt-${offset}`, cursors: [{ offset }], ...more },
});

/** Makes a gate that a handler waits at. */
function gate() {
  let open = () => {};
  const shut = new Promise<void>((resolve) => (open = resolve));
  return { open, shut };
}

/** A subscription with a handler that keeps what it is given. */
async function listening(options: SubscribeOptions = {}, handler?: (m: Message) => unknown) {
  const w = await open();
  const seen: string[] = [];
  const at: string[] = [];
  const told: string[] = [];
  const sub = w.client.subscribe(
    "a",
    (m) => {
      seen.push(m.text());
      at.push(m.position);
      return handler?.(m);
    },
    options,
  );
  sub.on("gap", (g) => told.push(`gap ${g.reason} ${g.after}-${g.through} ${g.missed}`));
  sub.on("caughtup", () => told.push("caughtup"));
  sub.on("state", (s) => told.push(s));
  await settle();
  const asked = w.peer.take("subscribe");
  return { ...w, sub, seen, at, told, asked, number: asked[0]?.sub ?? 0 };
}

/** Loses the connection, opens another, and returns it with what was asked for over it. */
async function again(net: { last: Peer; peers: Peer[] }) {
  net.last.end();
  const count = net.peers.length;
  while (net.peers.length === count) await vi.advanceTimersToNextTimerAsync();
  const peer = net.last.open();
  const [connect] = peer.take("connect");
  peer.welcome();
  return { peer, asked: connect?.subscriptions ?? [] };
}

test("asks with all that was given, and once", async () => {
  const { asked, peer } = await listening({
    from: "-10m",
    stream: "s",
    credit: 1000,
    slow: "conflate",
    conflateMs: 50,
    echo: false,
  });
  expect(asked).toEqual([
    {
      sub: 1,
      filter: "a",
      from: "-10m",
      stream: "s",
      credit: 1000,
      slow: "conflate",
      conflateMs: 50,
      echo: false,
      consumer: "",
      window: 0,
    },
  ]);
  expect(peer.sent.filter((f) => f.subscribe).length).toBe(1);
});

test("subscriptions from before Welcome are in Connect, or follow it", async () => {
  const { net, client } = start();
  client.subscribe("first");
  await settle();
  net.last.open();
  client.subscribe("second");
  await settle();
  expect(net.last.take("connect")[0]?.subscriptions).toMatchObject([{ sub: 1, filter: "first" }]);
  expect(net.last.take("subscribe")).toEqual([]);
  net.last.welcome();
  expect(net.last.take("subscribe")).toMatchObject([{ sub: 2, filter: "second" }]);
});

test("goes through its states, and says where it is", async () => {
  const { sub, peer, told, number, seen } = await listening();
  expect([sub.state, sub.position]).toEqual(["asking", ""]);
  expect(await outcome(sub.ready)).toBe("pending");
  peer.say(subscribed(number, 4));
  expect(await outcome(sub.ready)).toBe(undefined);
  expect(sub.position).toBe("pt-4");
  peer.say(chunk(number, 4, 9, [5, 7]), { caughtUp: { sub: number } });
  await settle();
  expect(seen).toEqual(["5", "7"]);
  expect(sub.position).toBe("pt-9");
  expect(told).toEqual(["behind", "live", "caughtup"]);
});

test("a message says all that there is to say", async () => {
  const all: Message[] = [];
  const { peer, number } = await listening({}, (m) => all.push(m));
  const more = {
    key: "k",
    publisher: "p",
    headers: [{ name: "x", value: "1" }],
    time: 1_700_000_000_000_000,
    expiresAt: 1_800_000_000_000_000,
  };
  const json = { ...record(5, more), contentType: "application/json; charset=utf-8" };
  peer.say(subscribed(number, 0));
  peer.say(
    chunk(number, 0, 7, [], {
      partition: 3,
      records: [
        { ...json, payload: new TextEncoder().encode('{"a":1}') },
        { ...json, offset: 6 },
        { ...json, offset: 7, contentType: "image/png", expiresAt: 0, payload: Uint8Array.of(1) },
      ],
    }),
  );
  await settle();
  expect(all[0]).toMatchObject({
    topic: "a",
    id: "m5",
    key: "k",
    publisher: "p",
    ephemeral: false,
    data: { a: 1 },
  });
  expect(all[0]?.position).toBe("pt-0-3_5");
  expect(all[0]?.headers).toEqual({ x: "1" });
  expect(all[0]?.time).toEqual(new Date(1_700_000_000_000));
  expect(all[0]?.expires).toEqual(new Date(1_800_000_000_000));
  expect(all[1]?.data).toBe(5);
  expect([all[2]?.data, all[2]?.expires]).toEqual([Uint8Array.of(1), undefined]);
});

test("the position moves when the handler has returned, and not before", async () => {
  const gates = [gate(), gate(), gate()];
  let n = 0;
  const { sub, peer, number, seen } = await listening({}, () => gates[n++]?.shut);
  peer.say(subscribed(number, 0), chunk(number, 0, 5, [2, 4]), chunk(number, 5, 9, [6]));
  await settle();
  expect([seen.length, sub.position]).toEqual([1, "pt-0"]);
  gates[0]?.open();
  await settle();
  expect([seen.length, sub.position]).toEqual([2, "pt-2"]);
  gates[1]?.open();
  await settle();
  expect([seen.length, sub.position]).toEqual([3, "pt-5"]);
  gates[2]?.open();
  await settle();
  expect(sub.position).toBe("pt-9");
});

test("a handler that throws ends the subscription, and its message is not behind it", async () => {
  for (const fail of [
    () => {
      throw new Error("mine");
    },
    async () => {
      throw new Error("mine");
    },
  ]) {
    const { sub, peer, number } = await listening({}, (m) => m.text() === "4" && fail());
    peer.say(subscribed(number, 0), chunk(number, 0, 5, [2, 4, 5]));
    await settle();
    expect(sub.state).toBe("ended");
    expect(await outcome(sub.done)).toBe("error mine");
    expect(sub.position).toBe("pt-2");
    expect(peer.take("unsubscribe")).toEqual([{ sub: number }]);
  }
});

test("what comes before is dropped, and what begins beyond the cursor is a hole", async () => {
  const { net, sub, peer, number, seen } = await listening();
  peer.say(subscribed(number, 4), chunk(number, 0, 6, [3, 4, 5]), chunk(number, 2, 6, [5, 6]));
  await settle();
  expect(seen).toEqual(["5"]);
  peer.say(chunk(number, 8, 9, [9]));
  expect(peer.take("unsubscribe")).toEqual([{ sub: number }]);
  peer.say(chunk(number, 9, 10, [10])); // on its way
  await pass(500);
  const [asked] = peer.take("subscribe");
  expect(asked).toMatchObject({ from: "pt-6" });
  expect(asked?.sub).not.toBe(number);
  peer.say(subscribed(asked!.sub!, 6, { resumed: true }), chunk(asked!.sub!, 6, 10, [7, 9]));
  await settle();
  expect(seen).toEqual(["5", "7", "9"]);
  expect(sub.position).toBe("pt-10");
  expect(net.peers.length).toBe(1);
});

test("progress moves the position behind what was handled, and never over what was not", async () => {
  const door = gate();
  const { sub, peer, number } = await listening({}, () => door.shut);
  peer.say(subscribed(number, 0), { progress: { subs: [77, number], term: "t", through: 3 } });
  expect(sub.position).toBe("pt-3");
  peer.say({ progress: { subs: [number], term: "t", through: 2 } });
  expect(sub.position).toBe("pt-3");
  peer.say(chunk(number, 3, 5, [5]));
  await settle();
  peer.say({ progress: { subs: [number], term: "t", through: 9 } }); // while the last one is handled
  await settle();
  expect(sub.position).toBe("pt-3");
  door.open();
  await settle();
  expect(sub.position).toBe("pt-9");
});

test("a gap is told in its place, and moves the cursor, back as well", async () => {
  const { sub, peer, number, seen, told } = await listening({ from: "pt-50" });
  peer.say(subscribed(number, 50));
  peer.say({
    gap: {
      sub: number,
      reason: "rolled_back",
      after: 20,
      through: 50,
      position: "pu-20",
      offset: 20,
    },
  });
  await settle();
  expect(sub.position).toBe("pu-20");
  peer.say(chunk(number, 20, 22, [21, 22], { term: "u" }));
  peer.say({
    gap: {
      sub: number,
      reason: "retention",
      after: 22,
      through: 30,
      position: "pu-30",
      offset: 30,
    },
  });
  peer.say(chunk(number, 30, 31, [31], { term: "u" }));
  await settle();
  expect(seen).toEqual(["21", "22", "31"]);
  expect(told.filter((t) => t.startsWith("gap"))).toEqual([
    "gap rolled_back 20-50 0",
    "gap retention 22-30 0",
  ]);
});

test("a gap that nobody listens to is said in the console", async () => {
  const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
  const { client, peer } = await open({ log: true });
  client.subscribe("a", () => {});
  await settle();
  peer.say(subscribed(1, 0), { gap: { sub: 1, reason: "retention", position: "pt-5", offset: 5 } });
  await settle();
  expect(warn.mock.calls[0]?.join(" ")).toMatch(/the subscription to a has a gap/);
  expect(warn.mock.calls[0]?.at(-1)).toMatchObject({ reason: "retention" });
});

test("a connection that is lost between Subscribed and Gap loses no gap", async () => {
  const w = await listening({ from: "pold-7" });
  w.peer.say(subscribed(w.number, 7, { position: "pold-7" }));
  expect(w.sub.position).toBe("pold-7");
  const { peer, asked } = await again(w.net);
  expect(asked).toMatchObject([{ from: "pold-7" }]);
  const sub = asked[0]!.sub!;
  peer.say(subscribed(sub, 7, { position: "pold-7" }));
  peer.say({ gap: { sub, reason: "other_log", position: "pt-0", offset: 0 } }, chunk(sub, 0, 2, [1, 2]));
  await settle();
  expect(w.told.filter((t) => t.startsWith("gap"))).toEqual(["gap other_log 0-0 0"]);
  expect(w.seen).toEqual(["1", "2"]);
  expect((await again(w.net)).asked).toMatchObject([{ from: "pt-2" }]);
});

test("who was never confirmed asks as before; who was asks from what was received", async () => {
  const door = gate();
  const w = await listening({ from: "last:5" }, () => door.shut);
  const second = await again(w.net);
  expect(second.asked).toMatchObject([{ from: "last:5" }]);
  const sub = second.asked[0]!.sub!;
  second.peer.say(subscribed(sub, 10), chunk(sub, 10, 20, [12, 20]));
  await settle();
  expect(w.sub.position).toBe("pt-10"); // the handler has it
  const third = await again(w.net);
  expect(third.asked).toMatchObject([{ from: "pt-20" }]);
  third.peer.say(subscribed(third.asked[0]!.sub!, 20, { resumed: true }));
  await settle();
  expect(w.sub.position).toBe("pt-10"); // still
  door.open();
  await settle();
  expect(w.seen).toEqual(["12", "20"]);
  expect(w.sub.position).toBe("pt-20");
});

test("ephemeral messages are handled and move nothing", async () => {
  const all: Message[] = [];
  const w = await listening({}, (m) => all.push(m));
  w.peer.say(subscribed(w.number, 5));
  w.peer.say({ deliver: { sub: w.number, records: [record(0, { ephemeral: true })] } });
  await settle();
  expect(all.map((m) => [m.ephemeral, m.position])).toEqual([[true, ""]]);
  expect(w.sub.position).toBe("pt-5");
  w.peer.say({
    gap: { sub: w.number, reason: "ephemeral", after: 5, through: 5, position: "pt-5", offset: 5, missed: 3 },
  });
  await settle();
  expect(w.told).toContain("gap ephemeral 5-5 3");
  w.peer.say(chunk(w.number, 5, 6, [6]));
  await settle();
  expect(w.sub.position).toBe("pt-6");
});

test("caughtup is told once, in its place", async () => {
  const door = gate();
  const w = await listening({}, () => door.shut);
  w.peer.say(subscribed(w.number, 0), chunk(w.number, 0, 1, [1]), { caughtUp: { sub: w.number } });
  await settle();
  expect(w.told).toEqual(["behind"]);
  door.open();
  await settle();
  expect(w.told).toEqual(["behind", "live", "caughtup"]);
  const { peer, asked } = await again(w.net);
  peer.say(subscribed(asked[0]!.sub!, 1), { caughtUp: { sub: asked[0]!.sub! } });
  await settle();
  expect(w.told).toEqual(["behind", "live", "caughtup", "asking", "behind", "live"]);
});

test("who has caught up in a session that is over is not live in the next one", async () => {
  const door = gate();
  const w = await listening({}, () => door.shut);
  w.peer.say(subscribed(w.number, 0), chunk(w.number, 0, 1, [1]), { caughtUp: { sub: w.number } });
  await settle();
  w.peer.end();
  door.open();
  await settle();
  expect(w.sub.state).toBe("asking");
  expect(w.told).toContain("caughtup");
});

test("several partitions: each has its cursor, the position has all", async () => {
  const door = gate();
  const w = await listening({}, () => door.shut);
  const cursors = [{ offset: 5 }, { partition: 2, offset: 8 }];
  w.peer.say({ subscribed: { sub: w.number, position: "pt-5-2_8", cursors } });
  expect(w.sub.position).toBe("pt-5-2_8");
  w.peer.say(chunk(w.number, 8, 9, [9], { partition: 2 }), chunk(w.number, 5, 7, [6], {}));
  await settle();
  const next = await again(w.net);
  expect(next.asked).toMatchObject([{ from: "pt-7-2_9" }]);
  expect(w.sub.position).toBe("pt-5-2_8");
  door.open();
  await settle();
  expect(w.seen).toEqual(["9", "6"]);
  expect(w.at).toEqual(["pt-5-2_9", "pt-6-2_9"]);
  expect(w.sub.position).toBe("pt-7-2_9");
  const sub = next.asked[0]!.sub!;
  next.peer.say({
    subscribed: { sub, position: "pt-7-2_9", cursors: [{ offset: 7 }, { partition: 2, offset: 9 }] },
  });
  next.peer.say({ progress: { subs: [sub], partition: 2, term: "t", through: 20 } });
  next.peer.say(chunk(sub, 20, 21, [21], { partition: 2 }), chunk(sub, 7, 8, [8]));
  next.peer.say({ gap: { sub, partition: 2, reason: "retention", position: "pt-8-2_30", offset: 30 } });
  await settle();
  expect(w.sub.position).toBe("pt-8-2_30");
  next.peer.say(chunk(sub, 9, 10, [10]));
  await settle();
  expect(w.seen).toEqual(["9", "6", "21", "8"]);
  expect(next.peer.take("unsubscribe")).toEqual([{ sub }]);
});

test("several gaps at the beginning: only the last one moves the position", async () => {
  const w = await listening({ from: "po-3-1_4" });
  const cursors = [{ offset: 3 }, { partition: 1, offset: 4 }];
  w.peer.say({ subscribed: { sub: w.number, position: "po-3-1_4", cursors } });
  w.peer.say({ gap: { sub: w.number, reason: "other_log", position: "po-3-1_4", offset: 9 } });
  await settle();
  expect(w.sub.position).toBe("po-3-1_4");
  expect((await again(w.net)).asked).toMatchObject([{ from: "po-3-1_4" }]);
});

test("the place of one partition does not run ahead with what others have received", async () => {
  const doors = [gate(), gate()];
  let n = 0;
  const w = await listening({}, () => doors[n++]?.shut);
  w.peer.say({
    subscribed: {
      sub: w.number,
      position: "pt-5-1_8",
      cursors: [{ offset: 5 }, { partition: 1, offset: 8 }],
    },
  });
  w.peer.say(chunk(w.number, 5, 6, [6]), chunk(w.number, 8, 9, [9], { partition: 1 }));
  await settle();
  doors[0]?.open();
  await settle();
  expect(w.seen).toEqual(["6", "9"]);
  expect(w.sub.position).toBe("pt-6-1_8");
});

test("credit: never more is out than was granted, and it comes back only for what was handled", async () => {
  const door = gate();
  const credit = 2000;
  const w = await listening({ credit }, () => door.shut);
  expect(w.asked[0]?.credit).toBe(credit);
  w.peer.say(subscribed(w.number, 0));
  let sent = 0;
  for (let n = 1; n <= 10; n++) {
    const frame = chunk(w.number, n - 1, n, [n]);
    sent += say(frame).length;
    w.peer.say(frame);
  }
  await settle();
  expect(w.peer.take("flow")).toEqual([]);
  const next = await again(w.net);
  expect(next.asked[0]?.credit).toBe(credit - sent); // the rest is held
  const sub = next.asked[0]!.sub!;
  next.peer.say(subscribed(sub, 10));
  door.open();
  await settle();
  let granted = next.peer.take("flow").reduce((sum, f) => sum + f.credit!, 0);
  for (let n = 11; n < 200; n++) {
    const frame = chunk(sub, n - 1, n, [n]);
    sent += say(frame).length;
    next.peer.say(frame);
    await settle();
    granted += next.peer.take("flow").reduce((sum, f) => sum + f.credit!, 0);
    expect(granted).toBeLessThanOrEqual(sent);
    expect(sent - granted).toBeLessThan(credit); // or the broker would wait for ever
  }
  next.peer.say(chunk(sub, 0, 5, [1, 2, 3]), chunk(sub, 0, 199, Array(70).fill(1))); // what is dropped is given back, too
  await settle();
  expect(next.peer.take("flow").length).toBe(1);
});

test("a handler that never returns costs the credit and not more, over lost connections too", async () => {
  const w = await listening({ credit: 500 }, () => new Promise(() => {}));
  let { peer, number: sub } = w;
  let out = 500;
  let at = 0;
  for (let round = 0; round < 5; round++) {
    peer.say(subscribed(sub, at));
    while (out > 0) {
      const frame = chunk(sub, at, at + 1, [at + 1]);
      out -= say(frame).length;
      at++;
      peer.say(frame);
    }
    await settle();
    expect(peer.take("flow")).toEqual([]);
    const next = await again(w.net);
    peer = next.peer;
    sub = next.asked[0]!.sub!;
    out = next.asked[0]!.credit!;
    expect(out).toBe(0);
  }
});

test("a loop: the position moves when the next one is asked for, and break ends it", async () => {
  const w = await open();
  const sub = w.client.subscribe("a");
  await settle();
  w.peer.say(subscribed(1, 0), chunk(1, 0, 9, [3, 5, 7]));
  const positions: string[] = [];
  for await (const m of sub) {
    positions.push(sub.position);
    if (m.text() === "5") break;
  }
  expect(positions).toEqual(["pt-0", "pt-3"]);
  expect(sub.position).toBe("pt-3");
  expect(sub.state).toBe("ended");
  expect(await outcome(sub.done)).toBe(undefined);
  expect(w.peer.take("unsubscribe")).toEqual([{ sub: 1 }]);
});

test("a loop is the only one", async () => {
  const w = await listening();
  const loop = async (sub: Subscription) => {
    for await (const _ of sub);
  };
  await expect(loop(w.sub)).rejects.toThrow("subscribe again for another loop");
  expect(w.sub.state).not.toBe("ended");
  w.peer.say(subscribed(w.number, 0), chunk(w.number, 0, 1, [1]));
  await settle();
  expect(w.seen).toEqual(["1"]);
});

test("a loop that waits ends when the subscription does, with its error if there is one", async () => {
  for (const how of ["close", "client", "error"]) {
    const w = await open();
    const sub = w.client.subscribe("a");
    const loop = (async () => {
      for await (const _ of sub);
      return "over";
    })();
    loop.catch(() => {});
    await settle();
    w.peer.say(subscribed(1, 0));
    if (how === "close") await sub.close();
    if (how === "client") await w.client.close();
    if (how === "error") w.peer.say({ error: { sub: 1, code: "forbidden", message: "no" } });
    await settle();
    expect(await outcome(loop)).toBe(how === "error" ? "error forbidden" : "over");
    expect(await outcome(sub.done)).toBe(how === "error" ? "error forbidden" : undefined);
  }
});

test("what was received before an error is handled first", async () => {
  const w = await open();
  const sub = w.client.subscribe("a");
  await settle();
  w.peer.say(subscribed(1, 0), chunk(1, 0, 2, [1, 2]), {
    error: { sub: 1, code: "forbidden", message: "no" },
  });
  const seen: string[] = [];
  const loop = (async () => {
    for await (const m of sub) seen.push(m.text());
  })();
  loop.catch(() => {});
  await settle();
  expect(seen).toEqual(["1", "2"]);
  expect(await outcome(loop)).toBe("error forbidden");
});

test("close in the handler: nothing more comes, and its message is behind the position", async () => {
  for (const what of ["subscription", "client"]) {
    const w = await listening({}, (m) => m.text() === "2" && (what === "client" ? w.client : w.sub).close());
    w.peer.say(subscribed(w.number, 0), chunk(w.number, 0, 5, [1, 2, 3]), chunk(w.number, 5, 6, [6]));
    await settle();
    expect(w.seen).toEqual(["1", "2"]);
    expect(w.sub.position).toBe("pt-2");
    expect(await outcome(w.sub.done)).toBe(undefined);
  }
});

test("a signal ends it, before and after", async () => {
  const stop = new AbortController();
  const w = await listening({ signal: stop.signal });
  w.peer.say(subscribed(w.number, 0));
  stop.abort();
  expect(w.sub.state).toBe("ended");
  const late = w.client.subscribe("a", () => {}, { signal: stop.signal });
  await settle();
  expect(await outcome(late.done)).toBe(undefined);
  expect(await outcome(late.ready)).toBe("error closed");
  const { asked } = await again(w.net);
  expect(asked).toEqual([]);
});

test("refusals: for good it ends, else it asks again after a while", async () => {
  const w = await listening();
  const sub = () => w.peer.take("subscribe")[0]?.sub ?? 0;
  w.peer.say({
    error: {
      sub: w.number,
      request: "subscribe",
      code: "subscriptions_full",
      message: "x",
      retryable: true,
      retryAfterMs: 9000,
    },
  });
  await pass(8999);
  expect(sub()).toBe(0);
  await pass(1);
  const second = sub();
  expect(second).toBeGreaterThan(w.number);
  w.peer.say(subscribed(second, 0));
  w.peer.say({ error: { sub: second, code: "unknown_subscription", message: "x" } });
  expect(w.sub.state).toBe("asking");
  await pass(1000);
  const third = sub();
  w.peer.say({ error: { sub: third, request: "subscribe", code: "invalid_filter", message: "x" } });
  expect(await outcome(w.sub.done)).toBe("error invalid_filter");
  expect(await outcome(w.sub.ready)).toBe(undefined);
  expect((await again(w.net)).asked).toEqual([]);
});

test("closed while it rests it is not asked for again", async () => {
  const w = await listening();
  w.peer.say({
    error: { sub: w.number, request: "subscribe", code: "overloaded", message: "x", retryable: true },
  });
  await w.sub.close();
  await pass(60_000);
  expect(w.peer.take("subscribe")).toEqual([]);
});

test("a subscription that cannot be asked for ends, and harms nobody else", async () => {
  const { net, client } = start();
  const bad = client.subscribe("a", { credit: Number.NaN });
  const late = client.subscribe("b", { conflateMs: -1 });
  const good = client.subscribe("c");
  await settle();
  net.last.open();
  expect(net.last.take("connect")[0]?.subscriptions).toMatchObject([{ filter: "c" }]);
  expect([bad.state, late.state, good.state]).toEqual(["ended", "ended", "asking"]);
  expect(await outcome(bad.done)).toMatch(/out of range/);
});

/** A store of which the test says when what is done. */
function store(
  first?: string,
): PositionStore & { saved: string[]; load: ReturnType<typeof vi.fn>; save: ReturnType<typeof vi.fn> } {
  const saved: string[] = [];
  return { saved, load: vi.fn(async () => first), save: vi.fn(async (p: string) => void saved.push(p)) };
}

test("a store: what it has goes before from, and it is asked first", async () => {
  const door = gate();
  const s = store();
  s.load.mockImplementation(() => door.shut.then(() => "pt-40"));
  const w = await listening({ store: s, from: "earliest" });
  expect(w.asked).toEqual([]);
  door.open();
  await settle();
  expect(w.peer.take("subscribe")).toMatchObject([{ from: "pt-40" }]);
  expect(w.sub.position).toBe("pt-40");
});

test.each([undefined, null, ""])("a store without a position (%j) leaves it to from", async (none) => {
  const s = store();
  s.load.mockResolvedValue(none);
  const w = await listening({ store: s, from: "earliest" });
  expect(w.asked).toMatchObject([{ from: "earliest" }]);
});

test("closed while the store loads it is never asked for", async () => {
  const door = gate();
  const s = store();
  s.load.mockImplementation(() => door.shut.then(() => "pt-40"));
  const w = await listening({ store: s });
  await w.sub.close();
  door.open();
  await settle();
  expect(w.peer.take("subscribe")).toEqual([]);
  expect((await again(w.net)).asked).toEqual([]);
});

test("a store that cannot load ends the subscription: its place is not known", async () => {
  const s = store();
  s.load.mockRejectedValue(new Error("disk"));
  const w = await listening({ store: s });
  expect(w.asked).toEqual([]);
  expect(await outcome(w.sub.done)).toBe("error disk");
});

test("a store keeps the place where it began at once: a reload in between must not begin anew", async () => {
  const s = store();
  const w = await listening({ store: s });
  w.peer.say(subscribed(w.number, 7));
  await settle();
  expect(s.saved).toEqual(["pt-7"]);
});

test("a store is told only what was handled, not for each message, and in the end", async () => {
  const s = store();
  const doors = [gate(), gate()];
  let n = 0;
  const w = await listening({ store: s }, () => doors[n++]?.shut);
  w.peer.say(subscribed(w.number, 0), chunk(w.number, 0, 5, [1, 2, 3, 4, 5]));
  await pass(1000);
  expect(s.saved).toEqual(["pt-0"]);
  doors[0]?.open();
  await pass(10);
  expect(s.saved).toEqual(["pt-0", "pt-1"]);
  doors[1]?.open();
  await settle();
  expect(s.saved).toEqual(["pt-0", "pt-1", "pt-5"]);
});

test("a loop that is left, and a handler that throws, keep how far they were", async () => {
  for (const how of ["break", "throw", "close"]) {
    const s = store("pt-0");
    const w = await open();
    const sub = w.client.subscribe("a", { store: s });
    await settle();
    w.peer.say(subscribed(1, 0), chunk(1, 0, 9, [1, 2, 3, 4]));
    try {
      for await (const m of sub) {
        if (m.text() !== "3") continue;
        if (how === "break") break;
        if (how === "throw") throw new Error("mine");
        await sub.close();
      }
    } catch {}
    await settle();
    expect(s.saved.at(-1), how).toBe(how === "close" ? "pt-3" : "pt-2");
  }
});

test("a handler that throws has kept what it had handled before", async () => {
  const s = store("pt-0");
  const w = await listening({ store: s }, async (m) => {
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (m.text() === "4") throw new Error("mine");
  });
  w.peer.say(subscribed(w.number, 0), chunk(w.number, 0, 5, [1, 2, 3, 4]));
  await pass(40);
  expect(s.saved.at(-1)).toBe("pt-3");
});

test("a store that cannot save stops nothing, and is told again", async () => {
  const s = store("pt-0");
  const w = await listening({ store: s });
  s.save.mockImplementationOnce(async () => {
    throw new Error("disk");
  });
  w.peer.say(subscribed(w.number, 0), chunk(w.number, 0, 1, [1]));
  await settle();
  expect(w.seen).toEqual(["1"]);
  w.peer.say({ progress: { subs: [w.number], term: "t", through: 1 } }, { caughtUp: { sub: w.number } });
  await settle();
  expect(s.saved).toEqual(["pt-1"]);
});

test("saves that take long do not overtake each other", async () => {
  const s = store("pt-0");
  const door = gate();
  s.save.mockImplementationOnce((p: string) => door.shut.then(() => void s.saved.push(p)));
  const w = await listening({ store: s });
  w.peer.say(subscribed(w.number, 0));
  for (let n = 1; n < 5; n++) {
    w.peer.say(chunk(w.number, n - 1, n, [n]));
    await pass(100);
  }
  expect(s.save).toHaveBeenCalledTimes(1);
  door.open();
  await settle();
  expect(s.saved.at(-1)).toBe("pt-4");
});

/** What a broker with six messages, a gap and quiet stretches says to who begins at `from`. */
function script(sub: number, from: number): Deep<ServerFrame>[] {
  const all: [number, (at: number) => Deep<ServerFrame>][] = [
    [
      3,
      (at) =>
        chunk(
          sub,
          at,
          3,
          [1, 2, 3].filter((o) => o > at),
        ),
    ],
    [5, (at) => chunk(sub, at, 5, [5])],
    [9, () => ({ progress: { subs: [sub], term: "t", through: 9 } })],
    [
      12,
      (at) =>
        chunk(
          sub,
          at,
          12,
          [10, 12].filter((o) => o > at),
        ),
    ],
    [
      20,
      (at) => ({
        gap: { sub, reason: "retention", after: at, through: 20, position: "pt-20", offset: 20 },
      }),
    ],
    [21, (at) => chunk(sub, at, 21, [21])],
    [25, (at) => chunk(sub, at, 25, [])],
    [26, (at) => chunk(sub, at, 26, [26])],
  ];
  let at = from;
  const frames: Deep<ServerFrame>[] = [subscribed(sub, from, { resumed: true })];
  for (const [through, make] of all) {
    if (through <= from) continue;
    frames.push(make(at));
    frames.push({
      deliver: { sub, records: [record(0, { ephemeral: true, payload: new TextEncoder().encode("e") })] },
    });
    at = through;
  }
  return [...frames, { caughtUp: { sub } }];
}

test("cut after every frame and resumed: every message once, in order, and no gap that is none", async () => {
  const length = script(1, 0).length;
  for (let first = 0; first <= length; first++) {
    for (const second of [0, 1, 2, 5, length]) {
      const w = await listening({ from: "earliest" });
      w.peer.say(...script(w.number, 0).slice(0, first));
      if (first % 2) await settle();
      for (const cut of [second, length]) {
        const { peer, asked } = await again(w.net);
        const { from = "", sub = 0 } = asked[0]!;
        const at = from === "earliest" ? 0 : Number(from.split("-")[1]);
        peer.say(...script(sub, at).slice(0, cut));
        await settle();
      }
      const hint = `cut after ${first} and ${second}`;
      expect(
        w.seen.filter((s) => s !== "e"),
        hint,
      ).toEqual(["1", "2", "3", "5", "10", "12", "21", "26"]);
      expect(
        w.told.filter((t) => t.startsWith("gap")),
        hint,
      ).toEqual(["gap retention 12-20 0"]);
      expect(w.told.filter((t) => t === "caughtup").length, hint).toBe(1);
      expect(w.sub.position).toBe("pt-26");
      await w.client.close();
    }
  }
});
