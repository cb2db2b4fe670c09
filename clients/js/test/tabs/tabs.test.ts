import { createHash } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { connect } from "../../src/index.js";
import type { TabsOptions } from "../../src/tabs/connect.js";
import { connectTabs } from "../../src/tabs/index.js";
import type { Client, Subscription } from "../../src/types.js";
import { type Page, random, World } from "./world.js";

beforeEach(() => {
  vi.useFakeTimers();
  // The real one takes real time.
  const digest = async (_: unknown, data: unknown) => {
    const hash = createHash("sha256")
      .update(data as Uint8Array)
      .digest();
    return new Uint8Array(hash).buffer;
  };
  vi.spyOn(crypto.subtle, "digest").mockImplementation(digest);
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

/** Many lives of virtual time, on a machine that has other things to do. */
const long = { timeout: 120_000 };

/** A tab with a subscription, which has collected what it was given. */
interface Tab {
  page: Page;
  client: Client;
  sub: Subscription;
  got: string[];
  published: string[];
  name: string;
}

let tabs = 0;

/** A world in which everything random follows from a seed. */
function seeded(seed: number): World {
  const chance = random(seed);
  vi.spyOn(Math, "random").mockImplementation(chance);
  tabs = 0;
  return new World(chance);
}

function open(world: World, options: TabsOptions = {}): Tab {
  const page = world.open();
  const client = page.connect(options);
  const got: string[] = [];
  const sub = client.subscribe(">", (m) => void got.push(m.text()));
  return { page, client, sub, got, published: [], name: `t${tabs++}` };
}

/** Opens tabs, the first of which leads. */
async function openTabs(world: World, n: number): Promise<Tab[]> {
  const all: Tab[] = [];
  while (all.length < n) {
    all.push(open(world));
    await pass(30);
  }
  expect(leaders(world)).toEqual([0]);
  return all;
}

/** Publishes the tab's next number. */
function publish(tab: Tab): void {
  const text = `${tab.name}:${tab.published.length}`;
  tab.published.push(text);
  tab.client.publish("numbers", text).catch(() => {});
}

/** Which pages have a real connection. */
const leaders = (world: World) =>
  world.pages.flatMap((p, i) => ([...p.sockets].some((s) => s.readyState === 1) ? i : []));
const texts = (world: World) => world.broker.log.map((m) => m.text);

/** What a tab published is in the log, once, and in order; `maybe`: of a dead one, a beginning of it. */
function judgeLog(world: World, tab: Tab, maybe = false): void {
  const stored = texts(world).filter((t) => t.startsWith(`${tab.name}:`));
  expect(stored).toEqual(maybe ? tab.published.slice(0, stored.length) : tab.published);
}

describe("tabs of one origin", () => {
  it("share one session, and each gets everything in order", async () => {
    const world = seeded(1);
    const all = [open(world), open(world), open(world)];
    await pass(100);
    for (let i = 0; i < 50; i++) {
      publish(all[i % 3]!);
      await pass(1);
    }
    await pass(100);
    expect(world.broker.opened).toBe(1);
    expect(world.broker.sessions.size).toBe(1);
    expect(texts(world)).toHaveLength(50);
    for (const tab of all) {
      judgeLog(world, tab);
      expect(tab.got).toEqual(texts(world));
      expect(tab.sub.position).toBe("p1-50");
      expect(tab.client.state).toBe("open");
    }
  });

  it("have no timer of theirs while idle", async () => {
    const world = seeded(1);
    const all = await openTabs(world, 3);
    for (const tab of all) publish(tab);
    await pass(20_000);
    // The broker has one for the pings of each session.
    const shared = vi.getTimerCount() - 1;
    vi.clearAllTimers();
    for (const WebSocket of all.map((t) => t.page.socket())) connect("http://b.test", { WebSocket });
    await pass(20_000);
    expect(shared).toBe(vi.getTimerCount() - 3);
  });

  it("go on in the others when the leader closes its client, and when a guest does", async () => {
    const world = seeded(1);
    const [a, b, c] = (await openTabs(world, 3)) as [Tab, Tab, Tab];
    publish(b);
    await c.client.close();
    await pass(50);
    expect([...world.broker.sessions][0]?.subs.size).toBe(2);
    a.client.close();
    await pass(50);
    publish(b);
    await pass(50);
    expect(leaders(world)).toEqual([1]);
    expect(b.got).toEqual(b.published);
    expect(world.broker.most).toBe(1);
  });
});

describe("a guest", () => {
  it("follows the log where nothing comes for it", async () => {
    const world = seeded(1);
    const [a, b] = (await openTabs(world, 2)) as [Tab, Tab];
    const quiet = b.client.subscribe("other", () => {});
    await pass(50);
    publish(a);
    await pass(50);
    expect(quiet.position).toBe("p1-1");
  });

  it("says hello when its own lock is held, or its leader would think it dead", async () => {
    const world = seeded(1);
    const [a] = (await openTabs(world, 2)) as [Tab];
    const page = world.open();
    page.slowness = 200;
    const states: string[] = [];
    page.connect().on("state", ({ state }) => states.push(state));
    page.client.subscribe(">", () => {});
    await pass(50);
    // The new one calls, while the lock is not held yet.
    a.page.crash();
    await pass(1000);
    expect(states).toEqual(["open"]);
    expect([...world.broker.sessions][0]!.subs.size).toBe(2);
  });

  it("that dies leaves nothing behind", async () => {
    const world = seeded(1);
    const [, b] = (await openTabs(world, 3)) as [Tab, Tab];
    b.page.crash();
    await pass(50);
    expect([...world.broker.sessions][0]!.subs.size).toBe(2);
  });

  it("does not heed who leads no more", async () => {
    const world = seeded(1);
    const [a, b] = (await openTabs(world, 2)) as [Tab, Tab];
    const guests = [...world.channels].filter((c) => c.page === b.page && c.name.split(":").length === 3);
    const ghost = new a.page.env.Channel(guests[0]!.name);
    const states: string[] = [];
    b.client.on("state", ({ state }) => states.push(state));
    for (const word of [{ end: { code: 3501, reason: "no" } }, { end: {} }, { b: new ArrayBuffer(2) }]) {
      ghost.postMessage({ n: "former", ...word });
    }
    await pass(100);
    expect(states).toEqual([]);
  });
});

describe("when the leader dies", () => {
  const scenario = async (at: number, die: (page: Page) => void) => {
    const world = seeded(at);
    const all = await openTabs(world, 3);
    const [leader, ...rest] = all as [Tab, ...Tab[]];
    for (let ms = 0; ms < 40; ms++) {
      if (ms === at) die(leader.page);
      for (const tab of all) if (tab.page.alive) publish(tab);
      await pass(1);
    }
    await pass(6000);
    judgeLog(world, leader, true);
    for (const tab of rest) {
      judgeLog(world, tab);
      expect(tab.got).toEqual(texts(world));
      expect(tab.client.state).toBe("open");
    }
    expect(world.broker.sessions.size).toBe(1);
  };

  it("at each step of the hand-over none is lost, doubled or out of order", long, async () => {
    for (let at = 0; at < 40; at += 2) await scenario(at, (page) => page.crash());
  });

  it("the others come back at once", async () => {
    const world = seeded(1);
    const [a, b, c] = (await openTabs(world, 3)) as [Tab, Tab, Tab];
    a.page.crash();
    await pass(60);
    expect([b.client.state, c.client.state]).toEqual(["open", "open"]);
  });

  it("while it is being elected, another one is", long, async () => {
    for (let at = 0; at < 20; at++) {
      const world = seeded(at);
      const all = [open(world), open(world), open(world)];
      for (const tab of all) publish(tab);
      await pass(at);
      all[0]?.page.crash();
      await pass(100);
      for (const tab of all.slice(1)) {
        judgeLog(world, tab);
        expect(tab.client.state).toBe("open");
      }
      expect(world.broker.sessions.size).toBe(1);
    }
  });
});

describe("a leader whose page is frozen", () => {
  it("hands over before that", async () => {
    const world = seeded(1);
    const [a, b] = (await openTabs(world, 2)) as [Tab, Tab];
    a.page.freeze(true);
    publish(b);
    await pass(100);
    expect(leaders(world)).toEqual([1]);
    expect(b.got).toEqual(b.published);
    a.page.thaw();
    await pass(100);
    expect(a.got).toEqual(b.published);
    expect(world.broker.sessions.size).toBe(1);
  });

  it("without a warning is overthrown within seconds of the next publish, and steps down when it wakes", async () => {
    const world = seeded(1);
    const [a, b, c] = (await openTabs(world, 3)) as [Tab, Tab, Tab];
    publish(a);
    await pass(50);
    a.page.freeze(false);
    publish(b);
    await pass(6000);
    expect(b.client.state).toBe("open");
    judgeLog(world, b);
    expect(b.got).toEqual(texts(world));
    expect(c.got).toEqual(texts(world));
    publish(b);
    a.page.thaw();
    for (let i = 0; i < 20; i++) {
      publish(a);
      publish(b);
      await pass(1);
    }
    await pass(2000);
    for (const tab of [a, b, c]) {
      judgeLog(world, tab);
      expect(tab.got).toEqual(texts(world));
    }
    expect(world.broker.sessions.size).toBe(1);
  });

  it("without a warning is noticed when a tab is shown", async () => {
    const world = seeded(1);
    const [a, b] = (await openTabs(world, 2)) as [Tab, Tab];
    a.page.freeze(false);
    b.page.document.dispatchEvent(new Event("visibilitychange"));
    await pass(5000);
    expect(b.client.state).toBe("open");
    expect(leaders(world)).toContain(1);
  });

  it("is noticed by the silence of the broker otherwise", async () => {
    const world = seeded(1);
    const [a] = (await openTabs(world, 2)) as [Tab, Tab];
    a.page.freeze(false);
    await pass(70_000);
    expect(leaders(world)).toContain(1);
  });
});

describe("a group", () => {
  const token = (claims: object, key = "k") => {
    const part = Buffer.from(JSON.stringify(claims)).toString("base64url");
    return `e30.${part}.${key}`;
  };

  it("is of those whose tokens say the same, but for the times", async () => {
    const world = seeded(1);
    const of = (claims: object, key?: string) =>
      open(world, { group: undefined, token: () => token(claims, key) });
    of({ sub: "ann", exp: 5, iat: 1, jti: "x", publish: ["a.>"] });
    of({ exp: 6, sub: "ann", publish: ["a.>"], iat: 2, jti: "y" }, "other signature");
    await pass(100);
    expect(world.broker.sessions.size).toBe(1);
    of({ sub: "ann", exp: 5, publish: ["b.>"] });
    await pass(100);
    expect(world.broker.sessions.size).toBe(2);
    of({ sub: "bob", exp: 5, publish: ["a.>"] });
    await pass(100);
    expect(world.broker.sessions.size).toBe(3);
  });

  it("is left by a tab whose user has changed, when it connects again", async () => {
    const world = seeded(1);
    let user = "ann";
    const of = (sub: () => string) => open(world, { group: undefined, token: () => token({ sub: sub() }) });
    const a = of(() => "ann");
    await pass(30);
    of(() => user);
    of(() => "ann");
    await pass(50);
    expect(world.broker.sessions.size).toBe(1);
    user = "bob";
    a.page.crash();
    await pass(100);
    const who = world.broker.tokens.map((t) => JSON.parse(atob(t!.split(".")[2]!)).sub);
    expect(who.slice(1).sort()).toEqual(["ann", "bob"]);
  });

  it("keeps tokens apart that cannot be read, and those without one", async () => {
    const world = seeded(1);
    for (const t of ["key-1", "key-1", "key-2", "a.MTIz.b", "a.NDU2.b", undefined, undefined]) {
      open(world, { group: undefined, token: t });
    }
    await pass(100);
    expect(world.broker.sessions.size).toBe(5);
    expect(world.broker.tokens.filter((t) => t === "bearer.key-1")).toHaveLength(1);
  });

  it("is what the application says", async () => {
    const world = seeded(1);
    for (const group of ["ann", "ann", "bob", ""]) open(world, { group, token: "t" });
    await pass(100);
    expect(world.broker.sessions.size).toBe(3);
    for (const c of world.channels) expect(c.name).not.toContain("ann");
  });

  it("asks the token function of the leader's tab when that takes over", async () => {
    const world = seeded(1);
    const a = open(world, { token: () => "of-a" });
    open(world, { token: () => "of-b" });
    await pass(50);
    a.page.crash();
    await pass(100);
    expect(world.broker.tokens).toEqual(["bearer.of-a", "bearer.of-b"]);
  });

  it("asks the leader alone for a new token before the old one expires", async () => {
    const world = seeded(1);
    world.broker.expires = 60e6;
    const asked = [0, 0];
    open(world, { token: () => `a${asked[0]!++}` });
    await pass(30);
    open(world, { token: () => `b${asked[1]!++}` });
    await pass(55_000);
    expect(asked).toEqual([2, 1]);
  });
});

/** Tabs publish, and for a while the broker takes nothing. */
async function refused(seed: number): Promise<void> {
  const world = seeded(seed);
  const all = [open(world), open(world), open(world)];
  await pass(50);
  for (let i = 0; i < 60; i++) {
    if (i === 20) world.broker.full = true;
    if (i === 24 + (seed % 10)) world.broker.full = false;
    for (const tab of all) if (world.chance() < 0.7) publish(tab);
    await pass(1);
  }
  await pass(20_000);
  for (const tab of all) judgeLog(world, tab);
}

describe("the broker's word", () => {
  it("ends all tabs where it is final", async () => {
    const world = seeded(1);
    const all = [open(world), open(world)];
    const ended = Promise.allSettled(all.map((t) => t.client.done));
    await pass(50);
    world.broker.drop(3501, "not you");
    await pass(1000);
    expect((await ended).map((e) => e.status)).toEqual(["rejected", "rejected"]);
    expect(world.broker.sessions.size).toBe(0);
  });

  it("lets all come back otherwise, with what they have published", async () => {
    const world = seeded(1);
    const all = [open(world), open(world)];
    await pass(50);
    world.broker.drop();
    world.broker.down = true;
    for (const tab of all) publish(tab);
    await pass(20_000);
    expect(all.map((t) => t.client.state)).not.toContain("open");
    world.broker.down = false;
    await pass(60_000);
    for (const tab of all) {
      judgeLog(world, tab);
      expect(tab.got).toEqual(texts(world));
    }
    expect(world.broker.sessions.size).toBe(1);
  });

  it("refuses for a while, and each tab's order is kept", long, async () => {
    for (let seed = 0; seed < 15; seed++) await refused(seed);
  });
});

it("a slow tab slows nobody else", async () => {
  const world = seeded(1);
  const [a, b] = [open(world), open(world)];
  const slow: string[] = [];
  const guest = world.open().connect();
  const handler = async (m: { text(): string }) => {
    slow.push(m.text());
    await new Promise((wake) => setTimeout(wake, 100));
  };
  guest.subscribe(">", handler, { credit: 500 });
  await pass(50);
  for (let i = 0; i < 200; i++) {
    publish(a);
    await pass(1);
  }
  await pass(100);
  expect(b.got).toEqual(a.published);
  expect(slow.length).toBeLessThan(6);
  const held = [...world.broker.sessions][0]!.subs;
  expect(Math.min(...[...held.values()].map((s) => s.cursor))).toBeLessThan(40);
  await pass(30_000);
  expect(slow).toEqual(a.published);
});

it("echo: false leaves out what the tab itself publishes, and nothing else", async () => {
  const world = seeded(1);
  const [a, b] = [open(world), open(world)];
  const got: string[] = [];
  const looped: string[] = [];
  a.client.subscribe(">", (m) => void got.push(m.text()), { echo: false });
  const loop = b.client.subscribe(">", { echo: false });
  (async () => {
    for await (const m of loop) looped.push(m.text());
  })();
  await pass(50);
  publish(a);
  a.client.publish("x", "chosen", { id: "mine" });
  await pass(20);
  b.client.publish("y", "also chosen", { id: "other" });
  publish(b);
  await pass(50);
  expect(got).toEqual(["also chosen", ...b.published]);
  expect(looped).toEqual([...a.published, "chosen"]);
});

it("without Web Locks a tab has a connection of its own, and says so once", async () => {
  vi.useRealTimers();
  const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
  vi.stubGlobal("navigator", {});
  class None {
    close() {}
  }
  const options = { WebSocket: None as unknown as typeof WebSocket };
  const clients = [connectTabs("http://a.test", options), connectTabs("http://a.test", options)];
  expect(warn).toHaveBeenCalledTimes(1);
  for (const c of clients) await c.close({ timeout: 0 });
  vi.unstubAllGlobals();
});

/** What may happen, and how often in a hundred steps; the rest is publishing. */
const happenings: [often: number, act: (life: Life, tab: Tab) => void][] = [
  [3, (life) => life.living.length < 6 && life.start()],
  [2, (life, tab) => life.living.length > 1 && tab.page.crash()],
  [1, (life, tab) => life.living.length > 1 && tab.client.close({ timeout: 0 })],
  [1, (life, tab) => life.freeze(tab, true)],
  [1, (life, tab) => life.freeze(tab, false)],
  [3, (life) => life.thaw()],
  [1, (life) => life.world.broker.drop()],
  [1, (life) => (life.world.broker.full = !life.world.broker.full)],
];

/** Tabs to which random things happen. */
class Life {
  readonly world: World;
  readonly all: Tab[] = [];
  #frozen = new Set<Tab>();

  constructor(seed: number) {
    this.world = seeded(seed);
  }

  get living(): Tab[] {
    return this.all.filter((t) => t.page.alive && t.client.state !== "closed");
  }

  start(): void {
    this.all.push(open(this.world));
  }

  freeze(tab: Tab, told: boolean): void {
    this.#frozen.add(tab);
    tab.page.freeze(told);
  }

  thaw(): void {
    for (const tab of this.#frozen) tab.page.thaw();
    this.#frozen.clear();
  }

  step(): void {
    const { chance } = this.world;
    const { living } = this;
    const tab = living[Math.floor(chance() * living.length)]!;
    let at = chance() * 100;
    for (const [often, act] of happenings) {
      if (at < often) return void act(this, tab);
      at -= often;
    }
    if (at < 70 && !this.#frozen.has(tab)) publish(tab);
  }

  async run(): Promise<void> {
    const { chance, broker } = this.world;
    this.start();
    await pass(chance() * 30);
    for (let i = 0; i < 150; i++) {
      this.step();
      await pass(chance() < 0.02 ? chance() * 8000 : chance() * 6);
    }
    broker.full = false;
    this.thaw();
    await pass(200_000);
    for (const tab of this.living) publish(tab);
    await pass(1000);
    for (const tab of this.all) this.#judge(tab);
    expect(broker.sessions.size).toBe(1);
    expect(broker.log.length).toBe(new Set(texts(this.world)).size);
    for (const tab of this.living) await tab.client.close({ timeout: 0 });
  }

  /** A subscription began somewhere; from there on it gets everything, once; of a dead one, a beginning of that. */
  #judge(tab: Tab): void {
    const living = this.living.includes(tab);
    judgeLog(this.world, tab, !living);
    const log = texts(this.world);
    const from = tab.got.length ? log.indexOf(tab.got[0]!) : log.length;
    expect(tab.got).toEqual(log.slice(from, living ? undefined : from + tab.got.length));
  }
}

const rounds = Number(process.env.TABS_ROUNDS ?? 40);
const first = Number(process.env.TABS_SEED ?? Math.floor(Math.random() * 1e6));

it(`whatever happens: ${rounds} lives from TABS_SEED=${first} on`, long, async () => {
  for (let seed = first; seed < first + rounds; seed++) {
    await new Life(seed).run().catch((error) => {
      error.message = `TABS_SEED=${seed} TABS_ROUNDS=1: ${error.message}`;
      throw error;
    });
    vi.clearAllTimers();
  }
});
