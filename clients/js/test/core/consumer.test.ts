// A member of a consumer: what it works on, and what it says of it.
import { expect, test, vi } from "vitest";
import type { ConsumeOptions, Delivery } from "../../src/types.js";
import type { ClientFrame, Deliver } from "../../src/wire/frames.js";
import { open, outcome, type Peer, pass, settle, virtual } from "../support/net.js";
import type { Deep } from "../support/wire.js";

virtual();

/** A worker that the test ends, message by message. */
class Worker {
  readonly running = new Map<string, { m: Delivery; end: (error?: Error) => void }>();
  readonly begun: string[] = [];
  work = (m: Delivery) =>
    new Promise<void>((resolve, reject) => {
      this.begun.push(`${m.text()}.${m.attempt}`);
      this.running.set(m.text(), { m, end: (error) => (error ? reject(error) : resolve()) });
    });
  async end(text: string, error?: Error): Promise<void> {
    this.running.get(text)?.end(error);
    this.running.delete(text);
    await settle();
  }
}

/** Messages, each an offset or an offset and its attempt. */
const deliver = (sub: number, ...what: (number | [number, number])[]): { deliver: Deep<Deliver> } => {
  const all = what.map((w) => (typeof w === "number" ? ([w, 1] as const) : w));
  return {
    deliver: {
      sub,
      term: "t",
      generation: 7,
      attempts: all.map(([, attempt]) => attempt),
      records: all.map(([offset]) => ({
        topic: "a",
        id: `m${offset}`,
        offset,
        payload: new TextEncoder().encode(`${offset}`),
      })),
    },
  };
};

const subscribed = (sub: number, ackWaitMs = 30_000) => ({
  subscribed: { sub, ackWaitMs, generation: 7, cursors: [{ offset: 0 }], position: "pt-0" },
});

type Said = { kind: string; offset: number; ref: number; sub: number };

/** What was said of messages, and not looked at. */
function said(peer: Peer): Said[] {
  return (["ack", "nack", "extend", "reject"] as const).flatMap((kind) =>
    peer
      .take(kind)
      .map(({ ref = 0, sub = 0, ranges }) => ({ kind, offset: ranges?.[0]?.from ?? 0, ref, sub })),
  );
}

const brief = (all: Said[]) => all.map((s) => `${s.kind} ${s.offset}`);

async function member(options: ConsumeOptions = {}, ackWaitMs?: number) {
  const w = await open();
  const worker = new Worker();
  const c = w.client.consume("c", "a", worker.work, options);
  const unsettled: string[] = [];
  c.on("unsettled", ({ message, error }) =>
    unsettled.push(`${message.text()} ${(error as { code?: string }).code}`),
  );
  const [asked] = w.peer.take("subscribe");
  w.peer.say(subscribed(1, ackWaitMs));
  return { ...w, worker, c, asked, unsettled };
}

async function again(net: { last: Peer; peers: Peer[] }) {
  net.last.end();
  const count = net.peers.length;
  while (net.peers.length === count) await vi.advanceTimersToNextTimerAsync();
  const peer = net.last.open();
  const sub = peer.take("connect")[0]?.subscriptions?.[0]?.sub ?? 0;
  return { peer: peer.welcome(), sub };
}

/** Answers what was said: taken, or refused with a code. */
const acked = ({ ref, sub }: Said, code?: string) => ({
  acked: { ref, sub, refused: code ? [{ code }] : [] },
});

test("joins with all that was given", async () => {
  const { asked, c } = await member({
    concurrency: 3,
    from: "new",
    stream: "s",
    settings: { ackWaitMs: 60_000, exclusive: true, backoffFactor: 1.5, backoffJitter: false },
  });
  expect(asked).toMatchObject({ consumer: "c", filter: "a", from: "new", stream: "s", window: 3 });
  expect(asked?.settings).toEqual({
    ackWaitMs: 60_000,
    exclusive: true,
    backoffFactor: 1.5,
    backoffJitter: false,
  });
  expect(asked?.credit).toBe(undefined);
  expect([c.name, c.state]).toEqual(["c", "live"]);
  expect(await outcome(c.ready)).toBe(undefined);
  expect((await member()).asked?.window).toBe(1);
  expect((await member({ concurrency: 2, window: 9 })).asked?.window).toBe(9);
});

test("a window that cannot be asked for is refused, and ends nothing else", async () => {
  const { client, peer } = await open();
  const join = () => client.consume("c", "a", () => {}, { concurrency: Number.POSITIVE_INFINITY });
  expect(join).toThrow("out of range");
  expect(client.state).toBe("open");
  expect(peer.take("subscribe")).toEqual([]);
});

test("so many at a time; what returns is acked, what throws nacked", async () => {
  const { peer, worker } = await member({ concurrency: 2 });
  peer.say(deliver(1, 1, 2, 3), deliver(1, 4));
  expect(worker.begun).toEqual(["1.1", "2.1"]);
  await worker.end("2");
  expect(worker.begun).toEqual(["1.1", "2.1", "3.1"]);
  await worker.end("1", new Error("x"));
  const all = said(peer);
  expect(brief(all)).toEqual(["ack 2", "nack 1"]);
  const frames = peer.sent.flatMap((f: ClientFrame) => f.ack ?? f.nack ?? []);
  expect(frames[0]).toMatchObject({ sub: 1, generation: 7, term: "t", confirm: true });
  expect((frames[1] as { delayMs?: number }).delayMs).toBe(undefined);
});

test("a message says what it is, and settles by hand; once", async () => {
  const { peer, worker } = await member({ concurrency: 9 });
  peer.say(deliver(1, 1, [2, 5], 3, 4));
  const get = (n: number) => worker.running.get(`${n}`)!.m;
  expect([get(2).attempt, get(2).generation, get(2).position]).toEqual([5, 7, "pt-2"]);
  const done = get(1).ack();
  void get(2).nack({ delay: 500 });
  void get(3).extend(9000);
  void get(4).reject("why");
  const all = said(peer);
  expect(brief(all)).toEqual(["ack 1", "nack 2", "extend 3", "reject 4"]);
  const [, nack, extend, reject] = peer.sent.slice(-4);
  expect([nack?.nack?.delayMs, extend?.extend?.byMs, reject?.reject?.reason]).toEqual([500, 9000, "why"]);
  expect(await outcome(done)).toBe("pending");
  peer.say(acked(all[0]!));
  expect(await outcome(done)).toBe(undefined);
  const m = get(1);
  for (const twice of [m.ack(), m.nack(), m.extend(), m.reject()])
    expect(await outcome(twice)).toBe("error settled");
  for (const n of [1, 2, 3, 4]) await worker.end(`${n}`);
  expect(brief(said(peer))).toEqual(["ack 3"]); // an extend settles nothing
});

test.each(["not_pending", "fenced", "never_delivered"])(
  "an ack that is refused (%s) is told",
  async (code) => {
    const { peer, worker, unsettled } = await member({ concurrency: 2 });
    peer.say(deliver(1, 1, 2));
    const mine = worker.running.get("1")!.m.ack();
    await worker.end("2");
    for (const s of said(peer)) peer.say(acked(s, code));
    await settle();
    expect(await outcome(mine)).toBe(`error ${code}`);
    expect(unsettled).toEqual([`2 ${code}`]);
  },
);

test("an ack that cannot be stored now is said again; one for ever is told", async () => {
  const { peer, worker, unsettled } = await member();
  peer.say(deliver(1, 1));
  await worker.end("1");
  const [s] = said(peer);
  const error = { code: "storage_full", message: "x", retryable: true, retryAfterMs: 3000 };
  peer.say({ acked: { ref: s!.ref, sub: 1, error } });
  await pass(2999);
  expect(said(peer)).toEqual([]);
  await pass(1);
  expect(said(peer)).toEqual([s]);
  peer.say({ error: { request: "ack", ref: s!.ref, sub: 1, code: "bad_request", message: "x" } });
  await settle();
  expect(unsettled).toEqual(["1 bad_request"]);
});

test("over a lost connection acks and rejects are said again, nacks are not", async () => {
  const { net, peer, worker } = await member({ concurrency: 9 });
  peer.say(deliver(1, 1, 2, 3, 4));
  const get = (n: number) => worker.running.get(`${n}`)!.m;
  const done = [get(1).ack(), get(2).nack(), get(3).reject(), get(4).extend()];
  expect(said(peer).length).toBe(4);
  const next = await again(net);
  expect(said(next.peer)).toEqual([]); // not before it is a member again
  next.peer.say(subscribed(next.sub));
  const repeated = said(next.peer);
  expect(brief(repeated)).toEqual(["ack 1", "reject 3"]);
  expect(repeated.map((s) => s.sub)).toEqual([next.sub, next.sub]);
  next.peer.say(acked(repeated[0]!, "not_pending"), acked(repeated[1]!));
  expect(await Promise.all(done.map(outcome))).toEqual([undefined, undefined, undefined, undefined]);
});

test("an ack without a connection is said over the next one; a nack and an extend are not", async () => {
  const { net, peer, worker } = await member({ concurrency: 3 });
  peer.say(deliver(1, 1, 2, 3));
  peer.end();
  await worker.end("1");
  const late = [worker.running.get("2")!.m.nack({ delay: 5000 }), worker.running.get("3")!.m.extend()];
  expect(await Promise.all(late.map(outcome))).toEqual([undefined, undefined]);
  await pass(500);
  net.last.welcome();
  const sub = net.last.sent[0]?.connect?.subscriptions?.[0]?.sub ?? 0;
  net.last.say(subscribed(sub));
  expect(brief(said(net.last))).toEqual(["ack 1"]);
});

test("what is worked on and comes again is not worked on twice", async () => {
  const { net, peer, worker } = await member({ concurrency: 9 });
  peer.say(deliver(1, 1, 2), deliver(1, [1, 2]));
  const next = await again(net);
  next.peer.say(subscribed(next.sub), deliver(next.sub, [1, 2], [2, 2], [3, 1]));
  expect(worker.begun).toEqual(["1.1", "2.1", "3.1"]);
  await worker.end("1");
  expect(brief(said(next.peer))).toEqual(["ack 1"]);
});

test("what is acked, and not answered, is not worked on again", async () => {
  const { net, peer, worker } = await member({ concurrency: 9 });
  peer.say(deliver(1, 1));
  await worker.end("1");
  const next = await again(net);
  next.peer.say(subscribed(next.sub), deliver(next.sub, [1, 2]));
  await settle();
  expect(brief(said(next.peer))).toEqual(["ack 1"]);
  expect(worker.begun).toEqual(["1.1"]);
});

test("an extend that is answered, or lost, behind the ack forgets nothing", async () => {
  const { net, peer, worker } = await member({ concurrency: 9 });
  peer.say(deliver(1, 1, 2));
  for (const n of ["1", "2"]) {
    void worker.running.get(n)!.m.extend();
    await worker.end(n);
  }
  peer.say(acked(said(peer).find((s) => s.kind === "extend" && s.offset === 1)!));
  peer.say(deliver(1, [1, 2]));
  const next = await again(net);
  next.peer.say(subscribed(next.sub), deliver(next.sub, [1, 3], [2, 2]));
  expect(worker.begun).toEqual(["1.1", "2.1"]);
});

test("what was nacked and comes again is worked on again", async () => {
  const { peer, worker } = await member();
  peer.say(deliver(1, 1));
  await worker.end("1", new Error("x"));
  peer.say(deliver(1, [1, 2]));
  expect(worker.begun).toEqual(["1.1", "1.2"]);
});

test("a new generation is worked on, and the old attempt settles only itself", async () => {
  const { peer, worker } = await member({ concurrency: 9 });
  peer.say(deliver(1, 1));
  const old = worker.running.get("1")!;
  const frame = deliver(1, [1, 1]);
  frame.deliver.generation = 8;
  peer.say(frame);
  expect(worker.begun).toEqual(["1.1", "1.1"]);
  old.end();
  await settle();
  peer.say(acked(said(peer)[0]!, "fenced"));
  peer.say(frame); // is worked on, by the second
  expect(worker.begun.length).toBe(2);
});

test("what takes long is extended, also what waits; with extend false it is not", async () => {
  const { peer, worker } = await member();
  peer.say(deliver(1, 1, 2));
  await pass(9999);
  expect(said(peer)).toEqual([]);
  await pass(1);
  expect(brief(said(peer))).toEqual(["extend 1", "extend 2"]);
  await worker.end("1");
  await worker.end("2");
  expect(brief(said(peer))).toEqual(["ack 1", "ack 2"]);
  peer.say({ ping: { seq: 1 } });
  await pass(20_000);
  expect(said(peer)).toEqual([]);

  const off = await member({ extend: false });
  off.peer.say(deliver(1, 1));
  await pass(20_000);
  expect(said(off.peer)).toEqual([]);

  const old = await member({}, 0); // by a broker that does not say
  old.peer.say(deliver(1, 1));
  await pass(9999);
  expect(said(old.peer)).toEqual([]);

  const fast = await member({}, 3000); // as the broker says
  fast.peer.say(deliver(1, 1));
  await pass(1000);
  expect(brief(said(fast.peer))).toEqual(["extend 1"]);
});

test("without a connection nothing is extended, then or later", async () => {
  const { net, peer } = await member();
  peer.say(deliver(1, 1));
  peer.end();
  await pass(500);
  await pass(9600); // the attempt lasts
  const next = net.last.open();
  const sub = next.sent[0]?.connect?.subscriptions?.[0]?.sub ?? 0;
  next.say({ welcome: { limits: { inFlight: 1 }, pingIntervalMs: 1e6 } }, subscribed(sub));
  expect(said(next)).toEqual([]);
});

test("close takes no more, waits for workers and answers, and leaves", async () => {
  const { net, peer, worker, c } = await member({ concurrency: 2 });
  peer.say(deliver(1, 1, 2, 3));
  const closing = c.close();
  await worker.end("1");
  await worker.end("2");
  expect(worker.begun).toEqual(["1.1", "2.1"]);
  const all = said(peer);
  peer.say(acked(all[0]!));
  expect(await outcome(closing)).toBe("pending");
  expect(peer.take("unsubscribe")).toEqual([]);
  peer.say(acked(all[1]!));
  expect(await outcome(closing)).toBe(undefined);
  expect(peer.take("unsubscribe")).toEqual([{ sub: 1 }]);
  expect(c.state).toBe("ended");
  const next = await again(net);
  expect(next.sub).toBe(0);
});

test("that a closed consumer waits for workers, which may wait for just that, is said in the console", async () => {
  const warn = vi.spyOn(console, "warn").mockReturnValue();
  const { client, peer } = await open({ log: true });
  const c = client.consume("c", "a", () => c.close());
  peer.say(subscribed(1), deliver(1, 1));
  await pass(9_999);
  expect(warn).not.toHaveBeenCalled();
  await pass(1);
  expect(warn.mock.calls).toEqual([["tidewire:", "the consumer c waits for workers to end"]]);
  await Promise.all([client.close({ timeout: 1 }), pass(1)]);
  expect(vi.getTimerCount()).toBe(0);
});

test("closing a client waits for its consumers, at most so long", async () => {
  const { client, peer, worker } = await member();
  peer.say(deliver(1, 1));
  const closing = client.close({ timeout: 3000 });
  await pass(2000);
  expect(client.state).toBe("open");
  await worker.end("1");
  expect(client.state).toBe("open");
  peer.say(acked(said(peer)[0]!));
  expect(client.state).toBe("closed");
  expect(await outcome(closing)).toBe(undefined);
  expect(vi.getTimerCount()).toBe(0);

  const slow = await member();
  slow.peer.say(deliver(1, 1));
  const m = slow.worker.running.get("1")!.m;
  void slow.client.close({ timeout: 3000 });
  await pass(3000);
  expect(slow.client.state).toBe("closed");
  expect(await outcome(slow.c.done)).toBe(undefined);
  expect(await outcome(m.ack())).toBe("error closed");
  await slow.worker.end("1");
  expect(slow.unsettled).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});

test("a signal closes it", async () => {
  const stop = new AbortController();
  const { peer, worker, c } = await member({ signal: stop.signal });
  peer.say(deliver(1, 1));
  stop.abort();
  expect(c.state).toBe("live");
  await worker.end("1");
  peer.say(acked(said(peer)[0]!));
  expect(c.state).toBe("ended");
});

test("who is taken over has ended, and does not come back", async () => {
  const { net, peer, worker, c } = await member({ settings: { exclusive: true } });
  peer.say(deliver(1, 1));
  const late = worker.running.get("1")!.m;
  peer.say({ error: { sub: 1, code: "taken_over", message: "x" } });
  expect(await outcome(c.done)).toBe("error taken_over");
  expect(await outcome(late.ack())).toBe("error closed");
  const next = await again(net);
  expect(next.sub).toBe(0);
  expect(vi.getTimerCount()).toBeGreaterThan(0);
});

test("a retryable error rests, and joins again with what was said", async () => {
  const { peer, worker, c } = await member();
  peer.say(deliver(1, 1));
  peer.say({ error: { sub: 1, code: "overloaded", message: "x", retryable: true, retryAfterMs: 5000 } });
  expect(c.state).toBe("asking");
  await worker.end("1");
  await pass(4999);
  expect(peer.take("subscribe")).toEqual([]);
  await pass(1);
  const [asked] = peer.take("subscribe");
  expect(asked?.consumer).toBe("c");
  peer.say(subscribed(asked!.sub!));
  expect(brief(said(peer))).toEqual(["ack 1"]);
});

test("closed while it rests it does not join again", async () => {
  const { peer, c } = await member();
  peer.say({ error: { sub: 1, code: "overloaded", message: "x", retryable: true } });
  await c.close();
  await pass(60_000);
  expect(peer.take("subscribe")).toEqual([]);
});

test("a gap is told", async () => {
  const { peer, c } = await member();
  const told: unknown[] = [];
  c.on("gap", (g) => told.push(g.reason));
  peer.say({ gap: { sub: 1, reason: "retention" } });
  expect(told).toEqual(["retention"]);
});

test("what cannot be written, said while it rests, keeps no close waiting", async () => {
  const { peer, worker, c } = await member();
  peer.say(deliver(1, 1));
  peer.say({ error: { sub: 1, code: "overloaded", message: "x", retryable: true } });
  const said = worker.running.get("1")!.m.reject(Symbol("no text") as never);
  await worker.end("1");
  void c.close();
  expect(c.state).toBe("asking");
  await pass(500);
  peer.say(subscribed(peer.take("subscribe")[0]!.sub!));
  expect(await outcome(said)).toMatch(/Symbol/);
  expect(c.state).toBe("ended");
});

test("what cannot be written of a message is told to who said it, and stops nothing", async () => {
  const { net, peer, worker, c } = await member({ concurrency: 2 });
  peer.say(deliver(1, 1, 2));
  expect(await outcome(worker.running.get("1")!.m.extend(-1))).toMatch(/out of range/);
  expect(await outcome(worker.running.get("2")!.m.nack({ delay: Number.NaN }))).toMatch(/out of range/);
  await again(net);
  void c.close();
  await worker.end("2");
  await worker.end("1");
  expect(net.last.left).toBe(false);
});
