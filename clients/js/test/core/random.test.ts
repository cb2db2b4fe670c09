// Random operations over a network and with a broker that fail at random, against a
// model that is simple. What fails prints its seed: TIDEWIRE_SEED=n runs that alone.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { connect } from "../../src/index.js";
import type { Client, OutboxEntry, OutboxStore } from "../../src/types.js";
import type { ClientFrame, Publish, ServerFrame, Subscribe } from "../../src/wire/frames.js";
import { Net, type Peer, welcome } from "../support/net.js";
import { type Deep, say } from "../support/wire.js";

beforeEach(() => {
  vi.useFakeTimers({ now: 1_700_000_000_000 });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const seeds = process.env.TIDEWIRE_SEED
  ? [Number(process.env.TIDEWIRE_SEED)]
  : Array.from({ length: Number(process.env.TIDEWIRE_ROUNDS ?? 40) }, (_, i) => i + 1);

/** Random numbers that a seed repeats (mulberry32). */
function chance(seed: number) {
  let a = seed;
  const next = () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  vi.spyOn(Math, "random").mockImplementation(next);
  return { below: (n: number) => Math.floor(next() * n), one: (n: number) => next() * n < 1 };
}

type Chance = ReturnType<typeof chance>;

/** One connection of a broker: frames take time, keep their order, and are lost with it. */
class Line {
  alive = true;
  /** After a refusal, until a publish has `resume`. */
  blocked = false;
  unanswered = 0;
  #last = [0, 0];

  constructor(
    readonly peer: Peer,
    readonly broker: { hears(line: Line, f: ClientFrame): void; chance: Chance; faults: boolean },
  ) {
    this.pass(0, () => {
      if (broker.faults && broker.chance.one(5)) return this.cut();
      peer.open();
    });
    peer.hears = (f) => this.pass(0, () => broker.hears(this, f));
  }

  /** After a while, and behind all that went the same way before. */
  pass(way: 0 | 1, f: () => void): void {
    const at = Math.max(this.#last[way]!, Date.now() + 1 + this.broker.chance.below(20));
    this.#last[way] = at;
    setTimeout(() => this.alive && f(), at - Date.now());
  }

  say(...frames: Deep<ServerFrame>[]): void {
    for (const f of frames) {
      this.pass(1, () => {
        if (this.broker.faults && this.broker.chance.one(60)) return this.cut();
        this.peer.say(f);
      });
    }
  }

  cut(): void {
    this.alive = false;
    if (!this.peer.left) this.peer.end();
  }
}

/** Stores what is published once, refuses at random, and notes what a client must not do. */
class Publishers {
  faults = true;
  readonly stored: string[] = [];
  readonly wrong: string[] = [];
  readonly refused = new Set<string>();
  #seen = new Map<string, number>();

  constructor(readonly chance: Chance) {}

  hears(line: Line, f: ClientFrame): void {
    if (f.connect) line.say({ welcome });
    if (!f.publish) return;
    if (++line.unanswered > 4) this.wrong.push("too many in flight");
    const { ref } = f.publish;
    const result = this.#publish(line, f.publish);
    line.pass(1, () => line.unanswered--);
    line.say({ published: { term: "t", results: [{ ref, ...result }] } });
  }

  #publish(line: Line, { messages, resume, repeatAgeMs }: Publish) {
    const { id = "", payload } = messages![0]!;
    const text = new TextDecoder().decode(payload);
    const fail = (code: string, retryable = true) => {
      line.blocked ||= retryable;
      return { error: { code, message: code, retryable, retryAfterMs: this.chance.below(2) * 700 } };
    };
    if (resume) line.blocked = false;
    if (line.blocked) return fail("out_of_order");
    const known = this.#seen.get(id);
    if (known && !repeatAgeMs) this.wrong.push(`${text} was repeated without its age`);
    const luck = this.faults ? this.chance.below(25) : 25;
    if (luck === 0) return fail("storage_full");
    if (luck === 1 && !known) this.refused.add(text);
    if (this.refused.has(text)) return fail("forbidden", false); // each time
    const offset = known ?? this.stored.push(text);
    if (luck === 2 && !known) {
      // It did not get that far.
      this.stored.pop();
      return fail("outcome_unknown");
    }
    this.#seen.set(id, offset);
    if (luck === 3) return fail("outcome_unknown");
    return { offset, duplicate: !!known };
  }
}

class Store implements OutboxStore {
  readonly kept = new Map<string, OutboxEntry>();
  load = async () => [...this.kept.values()].map((e) => structuredClone(e));
  add = (e: OutboxEntry) => void this.kept.set(e.id, structuredClone(e));
  remove = (e: OutboxEntry) => void this.kept.delete(e.id);
}

/** Compares what a broker has with what its client was told; with a store also later ones. */
function judge(
  broker: Publishers,
  outcomes: Map<string, string>,
  aborted: Set<string>,
  reloads: boolean,
): void {
  expect(broker.wrong).toEqual([]);
  const numbers = broker.stored.map(Number);
  expect(numbers, "in order, and once").toEqual([...new Set(numbers)].sort((a, b) => a - b));
  for (const [text, outcome] of outcomes) {
    const at = broker.stored.indexOf(text);
    const lost = reloads ? ["closed", "outcome_unknown"] : [];
    if (broker.refused.has(text)) expect(["forbidden", "AbortError", ...lost], text).toContain(outcome);
    else if (aborted.has(text) && at < 0) expect(["AbortError", ...lost], text).toContain(outcome);
    else
      expect([`pt-${at + 1}`, ...lost, ...(aborted.has(text) ? ["AbortError"] : [])], text).toContain(
        outcome,
      );
    if (!broker.refused.has(text) && !aborted.has(text)) expect(at, text).toBeGreaterThanOrEqual(0);
  }
}

async function publishing(seed: number): Promise<void> {
  const luck = chance(seed);
  const broker = new Publishers(luck);
  const net = new Net();
  let line: Line | undefined;
  net.onpeer = (peer) => (line = new Line(peer, broker));
  const store = luck.one(2) ? new Store() : undefined;
  const begin = () => connect("http://a", { WebSocket: net.WebSocket, log: false, outbox: { store } });
  let client: Client = begin();
  const outcomes = new Map<string, string>();
  const aborted = new Set<string>();
  const total = 60;
  for (let n = 0; n < total; n++) {
    const stop = new AbortController();
    if (luck.one(15)) {
      aborted.add(`${n}`);
      setTimeout(() => stop.abort(), luck.below(200));
    }
    client.publish("a", `${n}`, { signal: stop.signal }).then(
      (p) => outcomes.set(`${n}`, p.position),
      (e) => outcomes.set(`${n}`, e instanceof DOMException ? e.name : e.code),
    );
    if (luck.one(3)) await vi.advanceTimersByTimeAsync(luck.below(100));
    if (luck.one(12)) line?.cut();
    if (store && luck.one(20)) {
      const gone = client;
      void gone.close({ timeout: 0 });
      await vi.advanceTimersByTimeAsync(1);
      client = begin();
    }
  }
  broker.faults = false;
  await vi.advanceTimersByTimeAsync(1); // what a store has not given yet is left to the next page
  const left = client.close({ timeout: 600_000 });
  await vi.advanceTimersByTimeAsync(300_000);
  await left;
  expect(outcomes.size).toBe(total);
  judge(broker, outcomes, aborted, !!store);
  expect(store?.kept.size ?? 0).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
}

test("publishing: nothing lost, nothing doubled, in order", async () => {
  for (const seed of seeds) {
    vi.clearAllTimers();
    await publishing(seed).catch((error) => {
      throw new Error(`TIDEWIRE_SEED=${seed}: ${error.message}`, { cause: error });
    });
  }
}, 60_000);

/** What a broker knows of a subscription. */
interface Reader {
  line: Line;
  sub: number;
  cursor: number;
  credit: number;
  granted: number;
  told: boolean;
}

/** A log that grows and is trimmed; odd offsets are of the topic that is read. */
class Log {
  faults = true;
  head = 0;
  earliest = 1;
  readonly wrong: string[] = [];
  /** What a client need not have seen: it was told of a gap, or began behind it. */
  readonly gone: [number, number][] = [];
  reader: Reader | undefined;

  constructor(
    readonly chance: Chance,
    readonly credit: number,
  ) {}

  hears(line: Line, f: ClientFrame): void {
    if (f.connect) line.say({ welcome });
    for (const s of [...(f.connect?.subscriptions ?? []), f.subscribe]) if (s) this.#begin(line, s);
    if (f.unsubscribe && f.unsubscribe.sub === this.reader?.sub) this.reader = undefined;
    const r = this.reader;
    if (f.flow && f.flow.sub === r?.sub && r?.line === line) {
      r.credit += f.flow.credit!;
      if (r.credit > this.credit) this.wrong.push(`${r.credit} bytes of credit`);
    }
  }

  #begin(line: Line, { sub = 0, from = "", credit = 0 }: Subscribe): void {
    const position = /^pt-(\d+)$/.exec(from);
    const asked = position ? Number(position[1]) : this.earliest - 1;
    if (asked > this.head) this.wrong.push(`asked for ${from}, and the head is at ${this.head}`);
    const cursor = Math.max(asked, this.earliest - 1);
    if (!position) this.gone.push([0, asked]); // who has no position misses nothing
    if (this.faults && this.chance.one(10)) {
      line.say({ error: { sub, request: "subscribe", code: "overloaded", message: "x", retryable: true } });
      return;
    }
    line.say({
      subscribed: { sub, position: `pt-${asked}`, cursors: [{ offset: asked }] },
    });
    if (cursor > asked) line.say(this.#gap(sub, asked, cursor));
    this.reader = { line, sub, cursor, credit, granted: credit, told: false };
  }

  #gap = (sub: number, after: number, through: number): Deep<ServerFrame> => ({
    gap: { sub, reason: "retention", after, through, position: `pt-${through}`, offset: through },
  });

  /** Something happens: to the log, or for the reader. */
  step(): void {
    const { chance } = this;
    this.head += chance.below(4);
    if (this.faults && chance.one(25))
      this.earliest = Math.min(this.head + 1, this.earliest + chance.below(30));
    const r = this.reader;
    if (!r?.line.alive) return;
    if (this.faults && chance.one(80)) return r.line.cut();
    if (r.cursor < this.earliest - 1) {
      r.line.say(this.#gap(r.sub, r.cursor, this.earliest - 1));
      r.cursor = this.earliest - 1;
    }
    if (r.credit <= 0) return;
    if (chance.one(6)) {
      const soft: Deep<ServerFrame> = {
        deliver: { sub: r.sub, records: [{ topic: "a", ephemeral: true, id: "e" }] },
      };
      r.credit -= say(soft).length;
      return r.line.say(soft);
    }
    const through = Math.min(this.head, r.cursor + 1 + chance.below(8));
    if (through <= r.cursor) {
      if (!r.told) r.line.say({ caughtUp: { sub: r.sub } });
      r.told = true;
      return;
    }
    this.#deliver(r, through);
  }

  #deliver(r: Reader, through: number): void {
    const { chance } = this;
    const { sub } = r;
    // That it begins before the cursor is allowed; behind it is a hole.
    const overlap = this.faults ? chance.below(3) * chance.below(2) : 0;
    const after = Math.max(0, r.cursor - overlap);
    const offsets: number[] = [];
    for (let o = after + 1; o <= through; o++) if (o % 2 && o >= this.earliest) offsets.push(o);
    r.cursor = through;
    if (!offsets.length && chance.one(2))
      return r.line.say({ progress: { subs: [sub], term: "t", through } });
    const hole = this.faults && chance.one(30);
    const records = offsets.map((o) => ({ topic: "a", offset: o, id: `${o}` }));
    const deliver = hole
      ? { sub, term: "t", after: through, through: through + 1, records: [] }
      : { sub, term: "t", after, through, records };
    r.credit -= say({ deliver }).length;
    r.line.say({ deliver });
  }
}

async function subscribing(seed: number): Promise<void> {
  const luck = chance(seed);
  const credit = [100, 400, 5000][luck.below(3)]!;
  const log = new Log(luck, credit);
  const net = new Net();
  net.onpeer = (peer) => void new Line(peer, log);
  const kept = { position: "" };
  const store = {
    load: async () => kept.position,
    save: async (p: string) => {
      await new Promise((resolve) => setTimeout(resolve, luck.below(5)));
      kept.position = p;
    },
  };
  const behind = (p: string) => Number(p.split("-")[1] ?? 0);
  /** What was seen since the last reload. */
  let done = 0;
  const problems = log.wrong;
  let working = false;
  /** Judges a message when its handler is done. */
  const judge = (offset: number, position: string) => {
    if (offset <= done) problems.push(`${offset} came behind ${done}`);
    const told = (o: number) => log.gone.some(([after, through]) => o > after && o <= through);
    for (let o = done + 1; o < offset; o++)
      if (o % 2 && !told(o)) problems.push(`${o} was lost before ${offset}`);
    if (behind(position) >= offset) problems.push(`${position} while ${offset} was handled`);
    done = offset;
  };
  const begin = () => {
    const client = connect("http://a", { WebSocket: net.WebSocket, log: false });
    const over = () => client.state === "closed";
    const sub = client.subscribe(
      "a",
      async (m) => {
        if (working) problems.push("two handlers at a time");
        working = true;
        if (luck.one(3)) await new Promise((resolve) => setTimeout(resolve, luck.below(60)));
        if (over()) return;
        working = false;
        if (!m.ephemeral) judge(Number(m.id), sub.position);
      },
      { from: "earliest", credit, store },
    );
    sub.on("gap", (g) => {
      log.gone.push([g.after, g.through]);
      if (g.through >= log.earliest) problems.push(`a gap up to ${g.through}, and ${log.earliest} is there`);
    });
    return { client, sub };
  };
  let page = begin();
  for (let n = 0; n < 250; n++) {
    log.step();
    await vi.advanceTimersByTimeAsync(luck.below(60));
    if (luck.one(60)) {
      void page.client.close();
      await vi.advanceTimersByTimeAsync(100);
      working = false;
      done = behind(kept.position);
      page = begin();
    }
  }
  log.faults = false;
  const end = log.head;
  for (let n = 0; n < 2000 && behind(page.sub.position) < end; n++) {
    log.step();
    await vi.advanceTimersByTimeAsync(100);
  }
  expect(problems).toEqual([]);
  expect(behind(page.sub.position)).toBeGreaterThanOrEqual(end);
  expect(page.sub.state).not.toBe("ended");
  await page.client.close();
  await vi.advanceTimersByTimeAsync(1000);
  expect(vi.getTimerCount()).toBe(0);
}

test("subscribing: every message once and in order, every gap told, and none that is none", async () => {
  for (const seed of seeds) {
    vi.clearAllTimers();
    await subscribing(seed).catch((error) => {
      throw new Error(`TIDEWIRE_SEED=${seed}: ${error.message}`, { cause: error });
    });
  }
}, 60_000);
