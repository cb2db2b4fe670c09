// A browser with several tabs, and a broker, in one process and in virtual time. What
// the tests want to know of real ones, Chromium and the real broker tell in
// test/browser/tabs.test.ts; here tabs die at any moment, a thousand times.

import { connectIn, type TabsOptions } from "../../src/tabs/connect.js";
import type { Env } from "../../src/tabs/hub.js";
import { build, type Field, frame, get, parse } from "../../src/tabs/wire.js";
import type { Client } from "../../src/types.js";

/** Random numbers that a seed repeats (mulberry32). */
export function random(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Request {
  page: Page;
  name: string;
  grant: () => unknown;
  resolve: (value?: unknown) => void;
  reject: (error: unknown) => void;
}

/** All pages of one origin, and what they share. */
export class World {
  readonly channels = new Set<Channel>();
  readonly held = new Map<string, Request>();
  readonly queued: Request[] = [];
  readonly pages: Page[] = [];
  broker = new FakeBroker(this);

  constructor(readonly chance: () => number = Math.random) {}

  /** Tells how long something takes that takes time. (Of no time vitest's clock makes a millisecond, at times.) */
  delay(): number {
    return 1 + Math.floor(this.chance() * 3);
  }

  open(): Page {
    const page = new Page(this);
    this.pages.push(page);
    return page;
  }

  next(name: string): void {
    if (this.held.has(name)) return;
    const at = this.queued.findIndex((r) => r.name === name);
    const [request] = at < 0 ? [] : this.queued.splice(at, 1);
    if (request) this.hold(request);
  }

  hold(request: Request): void {
    const { name, page } = request;
    this.held.set(name, request);
    page.later(async () => {
      if (this.held.get(name) !== request) return;
      try {
        request.resolve(await request.grant());
      } finally {
        if (this.held.get(name) === request) this.release(name);
      }
    });
  }

  release(name: string): void {
    this.held.delete(name);
    setTimeout(() => this.next(name), this.delay());
  }
}

/** A page: it may be closed, crash, be frozen and thawed. */
export class Page {
  alive = true;
  /** How much longer its requests for locks take, in milliseconds. */
  slowness = 0;
  readonly document = new EventTarget();
  readonly sockets = new Set<FakeSocket>();
  client!: Client;
  #frozen = false;
  #missed: (() => void)[] = [];

  constructor(readonly world: World) {}

  get env(): Env {
    const { world } = this;
    const page = this;
    class Bound extends Channel {
      constructor(name: string) {
        super(page, name);
      }
    }
    return {
      locks: new Locks(world, this) as unknown as LockManager,
      Channel: Bound as unknown as Env["Channel"],
      page: this.document,
    };
  }

  connect(options: TabsOptions = {}): Client {
    const rest = { group: "g", log: false, ...options, WebSocket: this.socket() };
    this.client = connectIn(this.env, "http://broker.test", rest);
    return this.client;
  }

  /** A class of connections that end with the page. */
  socket(): typeof WebSocket {
    const page = this;
    class Socket extends FakeSocket {
      constructor(
        _url: string,
        override readonly protocols: string[],
      ) {
        super(page);
      }
    }
    return Socket as unknown as typeof WebSocket;
  }

  /** Lets the page do something a little later, if it is alive then, and when it is not frozen. */
  later(act: () => void, ms = this.world.delay()): void {
    setTimeout(() => this.run(act), ms);
  }

  run(act: () => void): void {
    if (!this.alive) return;
    if (this.#frozen) this.#missed.push(act);
    else act();
  }

  /** Its process is gone. */
  crash(): void {
    if (!this.alive) return;
    this.alive = false;
    const { queued, held, channels } = this.world;
    for (const r of [...queued]) if (r.page === this) queued.splice(queued.indexOf(r), 1);
    for (const [name, r] of [...held]) if (r.page === this) this.world.release(name);
    for (const c of [...channels]) if (c.page === this) channels.delete(c);
    for (const s of this.sockets) s.cut();
    this.client?.close({ timeout: 0 });
  }

  /** It stands still, with or without being told before. */
  freeze(told: boolean): void {
    if (told) this.document.dispatchEvent(new Event("freeze"));
    // What has been said by then is said.
    this.#frozen = true;
  }

  thaw(): void {
    this.#frozen = false;
    for (const act of this.#missed.splice(0)) this.run(act);
    this.document.dispatchEvent(new Event("resume"));
  }
}

class Locks {
  constructor(
    readonly world: World,
    readonly page: Page,
  ) {}

  request(name: string, ...rest: unknown[]): Promise<unknown> {
    const grant = rest.at(-1) as () => unknown;
    const { steal, signal } = (rest.length > 1 ? rest[0] : {}) as { steal?: boolean; signal?: AbortSignal };
    const { world, page } = this;
    return new Promise((resolve, reject) => {
      const request = { page, name, grant, resolve, reject };
      const arrive = () => {
        if (signal?.aborted || !page.alive) return;
        if (steal) {
          const robbed = world.held.get(name);
          if (robbed) robbed.page.later(() => robbed.reject(new DOMException("stolen", "AbortError")));
          world.hold(request);
        } else {
          world.queued.push(request);
          world.next(name);
        }
      };
      signal?.addEventListener("abort", () => {
        const at = world.queued.indexOf(request);
        if (at >= 0) world.queued.splice(at, 1);
        if (world.held.get(name) !== request) reject(new DOMException("aborted", "AbortError"));
      });
      setTimeout(arrive, world.delay() + page.slowness);
    });
  }
}

class Channel {
  onmessage: ((e: { data: unknown }) => void) | null = null;
  /** What is said arrives in the order in which it was said. */
  #last = new Map<Channel, number>();
  #unsaid: unknown[] = [];
  #closed = false;

  constructor(
    readonly page: Page,
    readonly name: string,
  ) {
    page.world.channels.add(this);
  }

  postMessage(message: unknown): void {
    if (this.#closed) throw new DOMException("closed", "InvalidStateError");
    this.#unsaid.push(structuredClone(message));
    // The clock here runs on for a frozen page; what it says then is heard when it wakes, in its order.
    this.page.run(() => {
      for (const data of this.#unsaid.splice(0)) this.#say(data);
    });
  }

  #say(data: unknown): void {
    for (const other of this.page.world.channels) {
      if (other === this || other.name !== this.name) continue;
      const at = Math.max(Date.now() + this.page.world.delay(), this.#last.get(other) ?? 0);
      this.#last.set(other, at);
      setTimeout(() => other.page.run(() => other.#closed || other.onmessage?.({ data })), at - Date.now());
    }
  }

  close(): void {
    this.#closed = true;
    this.page.world.channels.delete(this);
  }
}

/** A connection to the fake broker. */
export class FakeSocket {
  binaryType = "blob";
  readyState = 0;
  onopen: (() => void) | null = null;
  onmessage: ((e: { data: ArrayBuffer }) => void) | null = null;
  onclose: ((e: { code: number; reason: string }) => void) | null = null;
  protocols: string[] = [];
  session: Session | undefined;
  #unsent: Uint8Array[] = [];
  #toBroker = 0;
  #toPage = 0;

  constructor(readonly page: Page) {
    page.sockets.add(this);
    const { world } = page;
    setTimeout(() => {
      if (this.readyState > 1) return;
      if (world.broker.down) return this.end(1006);
      this.session = new Session(world.broker, this);
      world.broker.sessions.add(this.session);
      page.run(() => {
        if (this.readyState > 1) return;
        this.readyState = 1;
        this.onopen?.();
      });
    }, world.delay());
  }

  /** Both ways keep their order. */
  #way(last: number): number {
    return Math.max(Date.now() + this.page.world.delay(), last);
  }

  send(bytes: Uint8Array): void {
    if (this.readyState !== 1) return;
    this.#unsent.push(bytes.slice());
    this.page.run(() => {
      for (const copy of this.#unsent.splice(0)) {
        this.#toBroker = this.#way(this.#toBroker);
        setTimeout(() => this.session?.take(copy), this.#toBroker - Date.now());
      }
    });
  }

  /** From the broker. */
  receive(bytes: Uint8Array<ArrayBuffer>): void {
    const data = bytes.slice().buffer;
    this.#toPage = this.#way(this.#toPage);
    setTimeout(
      () => this.page.run(() => this.readyState === 1 && this.onmessage?.({ data })),
      this.#toPage - Date.now(),
    );
  }

  end(code: number, reason = ""): void {
    this.session?.end();
    this.#toPage = this.#way(this.#toPage);
    setTimeout(() => {
      this.page.run(() => {
        if (this.readyState > 2) return;
        this.readyState = 3;
        this.onclose?.({ code, reason });
      });
    }, this.#toPage - Date.now());
  }

  close(): void {
    if (this.readyState > 2) return;
    this.readyState = 3;
    this.cut();
  }

  cut(): void {
    this.page.sockets.delete(this);
    setTimeout(() => this.session?.end(), this.#way(this.#toBroker) - Date.now());
  }
}

export interface Stored {
  topic: string;
  id: string;
  text: string;
  /** The message as it is on the wire, without its place. */
  fields: Field[];
}

const utf8 = new TextDecoder();
const bytesOf = (text: string) => new TextEncoder().encode(text);
const textOf = (value: number | Uint8Array) => (value ? utf8.decode(value as Uint8Array) : "");

function fixed(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

/** Enough of a broker: a log, subscriptions with credit, dedupe, and refusals. */
export class FakeBroker {
  down = false;
  /** Refuses what is published, as a full disk does. */
  full = false;
  /** When tokens expire, in microseconds from the beginning of a session on. */
  expires = 0;
  readonly log: Stored[] = [];
  readonly sessions = new Set<Session>();
  readonly tokens: (string | undefined)[] = [];
  opened = 0;
  most = 0;

  constructor(readonly world: World) {}

  store(message: Stored): [offset: number, duplicate: boolean] {
    const before = this.log.findIndex((m) => m.topic === message.topic && m.id === message.id);
    if (before >= 0) return [before + 1, true];
    this.log.push(message);
    for (const s of this.sessions) s.deliver();
    return [this.log.length, false];
  }

  /** Ends all connections. */
  drop(code = 1006, reason = ""): void {
    for (const s of [...this.sessions]) s.socket.end(code, reason);
  }
}

interface Sub {
  number: number;
  filter: string;
  cursor: number;
  credit: number;
  caughtUp: number;
}

class Session {
  readonly subs = new Map<number, Sub>();
  #refusing = false;
  #connected = false;
  #pings: ReturnType<typeof setInterval> | undefined;

  constructor(
    readonly broker: FakeBroker,
    readonly socket: FakeSocket,
  ) {
    broker.tokens.push(socket.protocols[1]);
  }

  send(type: number, fields: Field[]): void {
    this.socket.receive(frame(type, fields));
  }

  end(): void {
    clearInterval(this.#pings);
    this.broker.sessions.delete(this);
  }

  take(bytes: Uint8Array): void {
    if (!this.broker.sessions.has(this)) return;
    const [[type, body]] = parse(bytes) as [Field];
    const fields = parse(body as Uint8Array);
    const number = get(fields, 1) as number;
    if (!this.#connected && type !== 1) throw new Error("the first frame is no Connect");
    if (type === 1) {
      if (this.#connected) throw new Error("two Connects");
      this.#connected = true;
      this.#pings = setInterval(() => this.send(9, []), 25_000);
      const { broker } = this;
      broker.opened++;
      broker.most = Math.max(broker.most, broker.sessions.size);
      this.send(1, [
        [2, bytesOf("s"), 2],
        [5, build([262_144, 1_048_576, 1000, 64, 1000].map((limit, i): Field => [i + 1, limit, 0])), 2],
        [6, 25_000, 0],
        [7, 10_000, 0],
        [8, fixed(0), 1],
        [9, fixed(broker.expires), 1],
      ]);
      for (const f of fields) if (f[0] === 4) this.#subscribe(parse(f[1] as Uint8Array));
    } else if (type === 2) this.#publish(number, fields);
    else if (type === 3) this.#subscribe(fields);
    else if (type === 4) {
      if (!this.subs.delete(number)) throw new Error(`unsubscribe of ${number}, which is none`);
      this.send(11, [[1, number, 0]]);
    } else if (type === 7) {
      const sub = this.subs.get(number);
      if (sub) sub.credit += get(fields, 2) as number;
      this.deliver();
    }
  }

  #subscribe(fields: Field[]): void {
    const number = get(fields, 1) as number;
    if (this.subs.has(number) || !number) throw new Error(`subscription ${number} is there already`);
    const from = textOf(get(fields, 3));
    const head = this.broker.log.length;
    const cursor = from.startsWith("p1-") ? Number(from.slice(3)) : from === "earliest" ? 0 : head;
    if (!(cursor <= head)) throw new Error(`from ${from}`);
    const credit = fields.find((f) => f[0] === 5)?.[1] as number | undefined;
    const sub = {
      number,
      filter: textOf(get(fields, 2)),
      cursor,
      credit: credit ?? Infinity,
      caughtUp: head,
    };
    this.subs.set(number, sub);
    this.send(3, [
      [1, number, 0],
      [2, bytesOf(`p1-${cursor}`), 2],
      [3, build([[2, cursor, 0]]), 2],
      [4, 1, 0],
    ]);
    this.deliver();
  }

  deliver(): void {
    const idle: number[] = [];
    for (const sub of this.subs.values()) {
      while (sub.cursor < this.broker.log.length && sub.credit > 0) {
        const after = sub.cursor;
        const through = Math.min(this.broker.log.length, after + 3);
        const records = this.broker.log.slice(after, through).flatMap((m, i): Field[] => {
          if (sub.filter !== m.topic && sub.filter !== ">") return [];
          return [[6, build([...m.fields, [10, fixed(after + i + 1), 1]]), 2]];
        });
        sub.cursor = through;
        if (records.length) {
          const head: Field[] = [
            [1, sub.number, 0],
            [3, bytesOf("1"), 2],
            [4, after, 0],
            [5, through, 0],
          ];
          const bytes = frame(4, [...head, ...records]);
          sub.credit -= bytes.length;
          this.socket.receive(bytes);
        } else idle.push(sub.number);
      }
      if (sub.caughtUp >= 0 && sub.cursor >= sub.caughtUp) {
        sub.caughtUp = -1;
        this.send(5, [[1, sub.number, 0]]);
      }
    }
    const done = idle.filter((n) => this.subs.get(n)?.cursor === this.broker.log.length);
    if (!done.length) return;
    const packed = new Uint8Array(done.flatMap((n) => [...build([[0, n, 0]]).slice(1)]));
    this.send(7, [
      [1, packed, 2],
      [3, bytesOf("1"), 2],
      [4, this.broker.log.length, 0],
    ]);
  }

  #publish(ref: number, fields: Field[]): void {
    if (get(fields, 3)) this.#refusing = false;
    const results: Field[] = [];
    fields
      .filter((f) => f[0] === 2)
      .forEach((f, i) => {
        const message = parse(f[1] as Uint8Array);
        const [topic, id, text] = [1, 2, 3].map((n) => textOf(get(message, n))) as [string, string, string];
        const code = this.#refusing ? "out_of_order" : this.broker.full ? "storage_full" : "";
        if (code) {
          this.#refusing = true;
          const error = build([
            [3, bytesOf(code), 2],
            [5, 1, 0],
          ]);
          results.push([
            2,
            build([
              [1, ref + i, 0],
              [5, error, 2],
            ]),
            2,
          ]);
          return;
        }
        const [offset, duplicate] = this.broker.store({ topic, id, text, fields: message });
        results.push([
          2,
          build([
            [1, ref + i, 0],
            [3, offset, 0],
            [4, +duplicate, 0],
          ]),
          2,
        ]);
      });
    this.send(2, [[1, bytesOf("1"), 2], ...results]);
  }
}
