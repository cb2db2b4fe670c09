import type { WebSocketClass } from "../types.js";
import { type Answer, type Env, Hub, type Word } from "./hub.js";
import { GO_AWAY, varint } from "./wire.js";

/** What the sockets of one client share. */
export interface Tab {
  env: Env;
  /** The class of real connections. */
  Real: WebSocketClass;
  /** Says who belongs together, by what a connection is made with. */
  group(protocols: string[]): Promise<string>;
  /** Resolves when the page is not frozen. */
  awake: Promise<unknown>;
  /** A leader that says nothing for so long is overthrown, in milliseconds. */
  patience: number;
  /** The newest socket. */
  socket?: TabSocket;
}

/** What is told in a group: that a guest looks for its leader, that there is a new leader, or that one is gone. */
interface Call {
  hello?: string;
  lead?: string;
  gone?: string;
}

/** A GoAway frame without a wait: come back at once. */
const comeBack = new Uint8Array([GO_AWAY * 8 + 2, 0]).buffer;

/** Going away, as WebSocket has it. */
const leaving = 1001;

/** A leader that has said nothing since a frame was sent to it so long ago is asked for a sign of life. */
const soon = 1000;

type Listener = ((event: never) => void) | null;

/**
 * Looks like a WebSocket. The tabs of a group elect one of theirs as the leader, who has
 * the real one; those of the others are guests of its session. The client above
 * does not know: when the leader is gone its connection is lost, it comes back at once,
 * and goes on from its positions and with its unanswered publishes, as it always does.
 *
 *                     lock granted                   closes, client leaves, frozen, lock stolen
 *     asking ------------------------------> leading -----------------+
 *      |  ^ |                                                         v
 *      |  | +-- the leader's connection has failed ---------------> closed
 *      |  |                                                           ^
 *      |  | the leader is gone                                        |
 *      |  +------ (asks the next one)                                 |
 *      |                                                              |
 *      | the leader's session is open         closes, leader is gone  |
 *      +------------------------------> guest ------------------------+
 *
 * Whoever asks waits for the lock of the group and has said hello; no answer for
 * `patience` means that the leader is frozen, or hangs, and its lock is stolen. The lock
 * is held as long as the real connection is, so a leader's death, of whatever
 * kind, makes the next one. A leader is known by a number, which is in all that is said:
 * what a former one says when it wakes is not heeded, and it then learns that it is none.
 */
export class TabSocket {
  binaryType = "arraybuffer";
  readyState = 0;
  onopen: Listener = null;
  onmessage: Listener = null;
  onclose: Listener = null;
  #tab: Tab;
  #url: string;
  #protocols: string[];
  #state: "asking" | "guest" | "leading" | "closed" = "asking";
  /** Random: a guest's name, a leader's number. */
  #id: string = crypto.randomUUID();
  #group = "";
  /** Number of the leader. */
  #n = "";
  #all: BroadcastChannel | undefined;
  #own: BroadcastChannel | undefined;
  #real: WebSocket | undefined;
  #hub: Hub | undefined;
  #away: ArrayBuffer | undefined;
  #queue = new AbortController();
  #over: () => void = () => {};
  #closed = new Promise<void>((over) => {
    this.#over = over;
  });
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Its own lock is held: only then may a leader wait for that to be released. */
  #present = false;

  constructor(tab: Tab, url: string, protocols: string[]) {
    this.#tab = tab;
    this.#url = url;
    this.#protocols = protocols;
    tab.socket = this;
    this.#start();
  }

  async #start(): Promise<void> {
    const { env, group, awake } = this.#tab;
    await awake;
    this.#group = await group(this.#protocols);
    if (this.#state === "closed") return;
    this.#all = new env.Channel(this.#group);
    this.#all.onmessage = ({ data }: MessageEvent<Call>) => this.#call(data);
    const name = `${this.#group}:${this.#id}`;
    this.#own = new env.Channel(name);
    this.#own.onmessage = ({ data }: MessageEvent<Word>) => this.#word(data);
    this.#ask();
    const present = () => {
      this.#present = true;
      this.#hello();
      return this.#closed;
    };
    env.locks.request(name, present).catch(() => {});
  }

  /** Waits for the lock of the group, or takes it from whoever has it. */
  #ask(steal = false): void {
    this.#queue.abort();
    const { signal } = (this.#queue = new AbortController());
    const granted = () => {
      if (signal.aborted) return;
      if (this.#state === "asking") this.#lead();
      else this.#orphan();
      return this.#closed;
    };
    this.#tab.env.locks.request(this.#group, steal ? { steal } : { signal }, granted).catch((error) => {
      if (signal.aborted) return;
      if (this.#state === "leading") this.#depart();
      // There are no locks where the page has no origin.
      else if (error.name === "SecurityError") this.#lead();
    });
  }

  #hello(): void {
    if (this.#state !== "asking" || !this.#present) return;
    this.#all?.postMessage({ hello: this.#id });
    this.#expect();
  }

  /** Waits for a sign of life. The randomness lets one of many be the first to lose patience. */
  #expect(): void {
    this.#within(this.#tab.patience * (1 + Math.random() / 2), () => this.#ask(true));
  }

  /** Acts unless the leader is heard before; one such thing is under way at a time. */
  #within(ms: number, act: () => void): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      act();
    }, ms);
  }

  #alive(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Asks the leader for a sign of life. */
  probe(): void {
    if (this.#state !== "guest") return;
    this.#alive();
    this.#answer({});
    this.#expect();
  }

  #answer(answer: Omit<Answer, "n">): void {
    this.#own?.postMessage({ n: this.#n, ...answer });
  }

  #call({ hello, lead, gone }: Call): void {
    if (hello && this.#state === "leading") this.#hub?.hello(hello);
    if (this.#state === "asking") {
      if (lead) this.#hello();
    } else if (gone ? gone === this.#n : lead) {
      this.#depart();
    }
  }

  #word({ n, open, b, end }: Word): void {
    if (this.#state === "asking" && !b && !end) this.#n = n;
    if (n !== this.#n) return;
    this.#alive();
    if (end) this.#ended(end);
    else if (b) this.#emit(this.onmessage, { data: b });
    else if (open && this.#state === "asking") {
      this.#state = "guest";
      this.#open();
    }
  }

  #ended({ code, reason = "", away }: NonNullable<Word["end"]>): void {
    if (!code && this.#state === "asking") {
      this.#hello();
    } else {
      if (!code || away) this.#tell(away ?? comeBack);
      this.#finish(code ?? leaving, reason);
    }
  }

  #lead(): void {
    const { env, Real } = this.#tab;
    this.#alive();
    this.#state = "leading";
    this.#n = this.#id;
    this.#hub = new Hub(
      env,
      this.#group,
      this.#n,
      (frame) => this.#real?.readyState === 1 && this.#real.send(frame),
      (data) => this.#emit(this.onmessage, { data }),
    );
    this.#all?.postMessage({ lead: this.#n });
    let real: WebSocket;
    try {
      real = new Real(this.#url, this.#protocols) as WebSocket;
    } catch {
      this.#finish(1006, "");
      return;
    }
    this.#real = real;
    real.binaryType = "arraybuffer";
    real.onopen = () => this.#open();
    real.onclose = ({ code, reason }) => {
      this.#hub?.end({ code, reason, away: this.#away });
      this.#finish(code, reason);
    };
    real.onmessage = ({ data }) => {
      if (varint(new Uint8Array(data), 0)[0] >>> 3 === GO_AWAY) this.#away = data;
      const own = this.#hub?.take(data);
      if (own) this.#emit(this.onmessage, { data: own });
    };
  }

  #open(): void {
    this.readyState = 1;
    this.#emit(this.onopen, {});
  }

  #emit(listener: Listener, event: object): void {
    (listener as ((event: object) => void) | null)?.(event);
  }

  /** The lock is a guest's: its leader is dead, or overthrown. The others need not wait for their turn to learn it. */
  #orphan(): void {
    this.#all?.postMessage({ gone: this.#n });
    this.#depart();
  }

  /** Lets the client come back at once: here or elsewhere there is, or will be, another leader. */
  #depart(): void {
    this.#tell(comeBack);
    this.#finish(leaving, "");
  }

  /** Says when to come back. */
  #tell(away: ArrayBuffer): void {
    if (this.readyState === 1) this.#emit(this.onmessage, { data: away });
  }

  #finish(code: number, reason: string): void {
    const { onclose } = this;
    this.close();
    this.#emit(onclose, { code, reason });
  }

  send(frame: Uint8Array<ArrayBuffer>): void {
    if (this.#state === "leading") this.#hub?.send(frame);
    else if (this.#state === "guest") {
      this.#answer({ b: frame.slice().buffer });
      this.#within(soon, () => this.probe());
    }
  }

  /** The page is about to be frozen: others go on without it. */
  freeze(): void {
    this.#depart();
  }

  close(): void {
    if (this.#state === "closed") return;
    if (this.#state === "guest") this.#answer({ bye: true });
    this.#hub?.end({ away: this.#away });
    this.#state = "closed";
    this.readyState = 3;
    this.onopen = this.onmessage = this.onclose = null;
    const real = this.#real;
    if (real) {
      real.onopen = real.onmessage = real.onclose = null;
      real.close();
    }
    clearTimeout(this.#timer);
    this.#queue.abort();
    this.#all?.close();
    this.#own?.close();
    this.#over();
  }
}
