import {
  ACKED,
  build,
  CAUGHT_UP,
  CONNECT,
  DELIVER,
  ERROR,
  type Field,
  FLOW,
  frame,
  GAP,
  get,
  PING,
  PONG,
  PROGRESS,
  PUBLISH,
  PUBLISHED,
  parse,
  REFRESH,
  SUBSCRIBE,
  SUBSCRIBED,
  set,
  UNSUBSCRIBE,
  UNSUBSCRIBED,
  varint,
  WELCOME,
} from "./wire.js";

/** What the tabs of a group use of their browser. Tests have one of their own. */
export interface Env {
  locks: LockManager;
  Channel: new (name: string) => BroadcastChannel;
  /** Tells when the page is shown and when it is about to be frozen. */
  page: EventTarget | undefined;
}

/** What a leader says to a guest. */
export interface Word {
  /** Number of the leader: what another one has said is not heeded. */
  n: string;
  /** The session is open; until then a word only means that there is a leader. */
  open?: boolean;
  /** A frame. */
  b?: ArrayBuffer;
  /** The connection has ended; without a close code, the leader leaves. */
  end?: { code?: number; reason?: string; away?: ArrayBuffer | undefined };
}

/** What a guest says to its leader. */
export interface Answer {
  n: string;
  b?: ArrayBuffer;
  /** The guest leaves. Without it and without a frame it asks for a sign of life. */
  bye?: boolean;
}

/** Who takes part in the session: a guest, or the leader itself. */
interface Guest {
  post(word: Omit<Word, "n">): void;
  /** The numbers of its subscriptions in the session, by its own. */
  subs: Map<number, number>;
  /** A publish was refused, as it knows or will learn, and will be repeated. */
  refused: boolean;
  leave(): void;
}

/**
 * The numbers of guests begin here, and the leader's own stay below, since every
 * client counts from 1. So the leader's frames are sent as they are; and the number
 * of a guest's subscription always takes four bytes.
 */
const firstSub = 2 ** 21;
const firstRef = 2 ** 31;

/** Frames that concern one subscription, and which of their fields has its number. */
const concerned: Record<number, number> = {
  [SUBSCRIBED]: 1,
  [CAUGHT_UP]: 1,
  [GAP]: 1,
  [UNSUBSCRIBED]: 1,
  [ACKED]: 2,
};

/** What the broker says to what comes behind a refused message: a code, and that it is worth repeating. */
const outOfOrder: Field = [
  5,
  build([
    [3, new TextEncoder().encode("out_of_order"), 2],
    [5, 1, 0],
  ]),
  2,
];

const repeated = (f: Field): boolean => f[0] === 2;
/**
 * The leader's side: lets guests take part in a session. Frames pass as they are, but
 * for the numbers of subscriptions and of published messages, which must differ within
 * a session.
 *
 * The naive way is a protocol of its own between the tabs. It needs a second client
 * with positions, outbox, credit and consumers in every guest; so they have the first one.
 */
export class Hub {
  #guests = new Map<string, Guest>();
  #leader: Guest;
  #subs = new Map<number, [guest: Guest, sub: number]>();
  /** Published messages without an answer: whose, which, and how many of the frame from this one on. */
  #refs = new Map<number, [guest: Guest, ref: number, left: number]>();
  #sub = firstSub;
  #ref = firstRef;
  #welcome: ArrayBuffer | undefined;
  /** The broker has refused something, and was not told to resume since. */
  #refusing = false;
  #env: Env;
  #group: string;
  #n: string;
  #send: (frame: Uint8Array<ArrayBuffer>) => void;

  /** `send` takes what is for the broker, `give` what is for the leader's client and does not come from the broker. */
  constructor(
    env: Env,
    group: string,
    n: string,
    send: (frame: Uint8Array<ArrayBuffer>) => void,
    give: (frame: ArrayBuffer) => void,
  ) {
    this.#env = env;
    this.#group = group;
    this.#n = n;
    this.#send = send;
    this.#leader = {
      post: ({ b }) => queueMicrotask(() => give(b!)),
      subs: new Map(),
      refused: false,
      leave: () => {},
    };
  }

  /** Takes a guest. It is one until it says goodbye, or its lock is released, because it is dead. */
  hello(id: string): void {
    const guest = this.#guests.get(id) ?? this.#guest(id);
    guest.post(this.#welcome ? { open: true } : {});
  }

  #guest(id: string): Guest {
    const name = `${this.#group}:${id}`;
    const channel = new this.#env.Channel(name);
    const waiting = new AbortController();
    const guest: Guest = {
      post: (word) => channel.postMessage({ n: this.#n, ...word }),
      subs: new Map(),
      refused: false,
      leave: () => {
        guest.post = () => {};
        this.#guests.delete(id);
        channel.close();
        waiting.abort();
      },
    };
    channel.onmessage = ({ data }: MessageEvent<Answer>) => {
      if (data.n !== this.#n) return;
      if (data.b) this.#fromGuest(guest, new Uint8Array(data.b));
      else if (data.bye) this.#drop(guest);
      else guest.post({});
    };
    this.#env.locks.request(name, { signal: waiting.signal }, () => this.#drop(guest)).catch(() => {});
    this.#guests.set(id, guest);
    return guest;
  }

  /** Forgets a guest, and takes back what it has subscribed to: the broker gives its deliveries to others. */
  #drop(guest: Guest): void {
    guest.leave();
    for (const real of guest.subs.values()) {
      this.#subs.delete(real);
      this.#send(frame(UNSUBSCRIBE, [[1, real, 0]]));
    }
    guest.subs.clear();
  }

  #fromGuest(guest: Guest, bytes: Uint8Array): void {
    const [first] = parse(bytes);
    if (!first) return;
    const [type, body] = first;
    const fields = parse(body as Uint8Array);
    if (type === CONNECT) {
      guest.post({ b: this.#welcome! });
      for (const f of fields) if (f[0] === 4) this.#subscribe(guest, parse(f[1] as Uint8Array));
    } else if (type === SUBSCRIBE) {
      this.#subscribe(guest, fields);
    } else if (type === PUBLISH) {
      this.#publish(guest, fields);
    } else if (type !== PONG && type !== REFRESH) {
      // Unsubscribe and Flow, or Ack and its like, which are answered with the number of the subscription too.
      const place = type > FLOW ? 2 : 1;
      const sub = get(fields, place) as number;
      const real = guest.subs.get(sub);
      if (!real) return;
      if (type === UNSUBSCRIBE) guest.subs.delete(sub);
      set(fields, place, real);
      this.#send(frame(type, fields));
    }
  }

  /** Sends a frame of the leader. Only of what it publishes must be known what becomes of it. */
  send(frame: Uint8Array<ArrayBuffer>): void {
    const [[type, body]] = parse(frame) as [Field];
    if (type === PUBLISH) this.#publish(this.#leader, parse(body as Uint8Array));
    else this.#send(frame);
  }

  #subscribe(guest: Guest, fields: Field[]): void {
    const sub = get(fields, 1) as number;
    const real = this.#sub++;
    guest.subs.set(sub, real);
    this.#subs.set(real, [guest, sub]);
    set(fields, 1, real);
    this.#send(frame(SUBSCRIBE, fields));
  }

  /**
   * After a retryable refusal the broker takes nothing of the session until a frame
   * says `resume`. That of one tab must not let pass what another sends before it
   * knows that something of it was refused: that is refused here, as the broker would.
   * What is under way while the broker refuses will be refused, too, so whose it is
   * is treated like that at once. And where nothing was refused, nothing is to be resumed.
   */
  #publish(guest: Guest, fields: Field[]): void {
    const count = fields.filter(repeated).length;
    const ref = get(fields, 1) as number;
    if (guest.refused && !get(fields, 3)) {
      const results = Array.from(
        { length: count },
        (_, i): Field => [2, build([[1, ref + i, 0], outOfOrder]), 2],
      );
      guest.post({ b: frame(PUBLISHED, results).buffer });
      return;
    }
    if (!guest.refused || !this.#refusing) set(fields, 3, 0);
    else {
      for (const [other] of this.#refs.values()) other.refused = true;
      this.#refusing = false;
    }
    guest.refused = false;
    if (this.#ref + count > 2 ** 32) this.#ref = firstRef;
    for (let i = 0; i < count; i++) this.#refs.set(this.#ref + i, [guest, ref + i, count - i]);
    set(fields, 1, this.#ref);
    this.#send(frame(PUBLISH, fields));
    this.#ref += count;
  }

  /** Takes that something was refused. */
  #refused(guest: Guest, retryable: boolean): void {
    if (retryable) guest.refused = this.#refusing = true;
  }

  /** Takes a frame from the broker, and returns what of it is the leader's own. */
  take(data: ArrayBuffer): ArrayBuffer | undefined {
    const bytes = new Uint8Array(data);
    const [tag, behind] = varint(bytes, 0);
    const type = tag >>> 3;
    if (type === DELIVER) return this.#deliver(data, bytes, varint(bytes, behind)[1] + 1);
    const fields = parse(bytes.subarray(varint(bytes, behind)[1]));
    if (type === WELCOME) this.#open(fields);
    else if (type === PING) this.#tell({ b: data });
    else if (type === PUBLISHED) return this.#published(fields);
    else if (type === PROGRESS) this.#progress(fields);
    else if (type === ERROR) return this.#error(data, fields);
    else if (concerned[type]) return this.#concerning(data, type, fields, concerned[type]);
    return data;
  }

  /** Delivers to whose subscription it is. The frame keeps its length, which is what it costs of the credit. */
  #deliver(data: ArrayBuffer, bytes: Uint8Array, at: number): ArrayBuffer | undefined {
    const [real, end] = varint(bytes, at);
    if (real < firstSub) return data;
    const to = this.#subs.get(real);
    if (!to) return;
    for (let sub = to[1]; at < end; sub >>>= 7) bytes[at] = (sub & 127) | (++at < end ? 128 : 0);
    to[0].post({ b: data });
    return;
  }

  /** A guest's session never needs a new token: the leader sees to that. */
  #open(fields: Field[]): void {
    this.#welcome = frame(
      WELCOME,
      fields.filter((f) => f[0] !== 9),
    ).buffer;
    this.#tell({ open: true });
  }

  #published(fields: Field[]): ArrayBuffer | undefined {
    const common = fields.filter((f) => !repeated(f));
    const all = new Map<Guest, Field[]>();
    for (const f of fields.filter(repeated)) {
      const result = parse(f[1] as Uint8Array);
      const real = get(result, 1) as number;
      const [guest, ref] = this.#refs.get(real) ?? [];
      if (!guest) continue;
      this.#refs.delete(real);
      set(result, 1, ref!);
      f[1] = build(result);
      const error = get(result, 5);
      if (error) this.#refused(guest, !!get(parse(error as Uint8Array), 5));
      all.set(guest, [...(all.get(guest) ?? common), f]);
    }
    let own: ArrayBuffer | undefined;
    for (const [guest, parts] of all) {
      const { buffer } = frame(PUBLISHED, parts);
      if (guest === this.#leader) own = buffer;
      else guest.post({ b: buffer });
    }
    return own;
  }

  #progress(fields: Field[]): void {
    const list = get(fields, 1) as Uint8Array;
    for (let at = 0, real: number; at < list.length; ) {
      [real, at] = varint(list, at);
      const [guest, sub] = this.#subs.get(real) ?? [];
      const mine = fields.map((f): Field => (f[0] === 1 ? [1, sub!, 0] : f));
      guest?.post({ b: frame(PROGRESS, mine).buffer });
    }
  }

  /** Takes a frame that concerns one subscription, whose number is in a field. */
  #concerning(data: ArrayBuffer, type: number, fields: Field[], place: number): ArrayBuffer | undefined {
    const real = get(fields, place) as number;
    if (real < firstSub) return data;
    const [guest, sub] = this.#subs.get(real) ?? [];
    if (!guest) return;
    if (type === UNSUBSCRIBED) this.#subs.delete(real);
    set(fields, place, sub!);
    guest.post({ b: frame(type, fields).buffer });
    return;
  }

  #error(data: ArrayBuffer, fields: Field[]): ArrayBuffer | undefined {
    if (get(fields, 2)) return this.#concerning(data, ERROR, fields, 2);
    const real = get(fields, 1) as number;
    const [guest, ref, left] = this.#refs.get(real) ?? [];
    if (!guest) {
      // Without a request it is why the broker is about to close.
      if (!real && !get(fields, 7)) this.#tell({ b: data });
      return data;
    }
    for (let i = 0; i < left!; i++) this.#refs.delete(real + i);
    this.#refused(guest, !!get(fields, 5));
    set(fields, 1, ref!);
    const { buffer } = frame(ERROR, fields);
    if (guest === this.#leader) return buffer;
    guest.post({ b: buffer });
    return;
  }

  #tell(word: Omit<Word, "n">): void {
    for (const guest of this.#guests.values()) guest.post(word);
  }

  /** Tells all guests that the connection has ended, or that the leader leaves. */
  end(how: NonNullable<Word["end"]>): void {
    this.#tell({ end: how });
    for (const guest of this.#guests.values()) guest.leave();
  }
}
