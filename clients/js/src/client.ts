import { address, diagnose } from "./address.js";
import { Backoff } from "./backoff.js";
import { Consumer } from "./consumer.js";
import { closed, refusal, TidewireError } from "./errors.js";
import { deferred, Emitter } from "./events.js";
import { history } from "./history.js";
import type { Link, Member } from "./member.js";
import { Outbox } from "./outbox.js";
import { Subscription } from "./subscription.js";
import type * as api from "./types.js";
import { decode, encode } from "./wire/codec.js";
import type { ClientFrame, ServerFrame, Subscribe, Welcome, WireError } from "./wire/frames.js";

/** A session must have lasted so long for the next failure to count as the first: a broker that closes at once is failing too. */
const stable = 10_000;

/** Number of a Refresh; publishes begin anew long before it. */
const refreshRef = 2 ** 32 - 1;

/** How long a session that was sent away waits for its answers. */
const farewell = 5000;

/** Longest time that a timer takes. */
const longest = 2 ** 31 - 1;

type Timer = ReturnType<typeof setTimeout>;

const silent = (): TidewireError =>
  new TidewireError("silence", "nothing was heard of the broker for too long", true);

const page = (): EventTarget | undefined => (typeof addEventListener === "function" ? globalThis : undefined);

/**
 * A client is one state machine, and everything that happens is one of its arrows:
 *
 *     idle -- shown, connect() --> connecting -- Welcome --> open
 *      ^                             |    ^                   |
 *      | hidden (from anywhere)      |    | pause over,       | lost, GoAway,
 *                                    |    | online, shown     | silence, offline
 *                             failed |    |                   |
 *                                    +--> waiting <-----------+
 *
 *     from anywhere: close(), or a refusal for good --> closed
 *
 * A socket whose turn is over is detached and forgotten at once: closing one to a
 * silent peer can take a browser half a minute. What it reports late is harmless,
 * since its handlers are gone and `#turn`, which counts attempts, has moved on.
 */
export class Connection extends Emitter<api.ClientEvents> implements api.Client, Link {
  state: api.State = "idle";
  #options: api.ConnectOptions;
  #urls: string[];
  #elsewhere: string[] = [];
  #at = 0;
  #failed = 0;
  #turn = 0;
  #socket: WebSocket | undefined;
  #url = "";
  #pause = new Backoff();
  /** What ends the state: an attempt, a pause, or a silence. */
  #timer: Timer | undefined;
  /** Those of the running session. */
  #timers = new Set<Timer>();
  #heard = 0;
  #silence = 35_000;
  #since = 0;
  #away: number | undefined;
  #lastWord: WireError | undefined;
  #welcome: Welcome | undefined;
  #shown: string | undefined;
  #stale: string | undefined;
  #unauthorized = false;
  #said = "";

  #members = new Set<Member>();
  #numbers = new Map<number, Member>();
  #last = 0;
  #outbox: Outbox;
  #pumping = false;
  #ready = deferred();
  #done = deferred();
  #drained: (() => void) | undefined;
  #error: Error | undefined;

  constructor(urls: string | string[], options: api.ConnectOptions) {
    super();
    this.#options = options;
    this.#urls = [urls].flat().map(address);
    this.#outbox = new Outbox(
      options.outbox ?? {},
      () => this.#pump(),
      (topic, id, error) =>
        this.emit("refused", { topic, id, error }) ||
        this.warn(`message ${id} on ${topic}, published by an earlier page:`, error),
    );
    for (const [name, act] of this.#happenings) page()?.addEventListener(name, act);
    this.#connect();
  }

  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get done(): Promise<void> {
    return this.#done.promise;
  }

  get open(): boolean {
    return this.state === "open";
  }

  /** What the browser tells of the page and of the network. */
  #happenings: [string, () => void][] = [
    ["offline", () => this.open && this.#lose(new TidewireError("offline", "the browser is offline", true))],
    ["online", () => this.#wake()],
    ["visibilitychange", () => this.#wake()],
    [
      "pagehide",
      () => {
        if (this.state === "closed") return;
        this.#detach();
        this.#enter("idle");
      },
    ],
    ["pageshow", () => this.#wake()],
  ];

  /** Connects at once if it does not, and finds out whether a connection has died in its sleep. */
  #wake(): void {
    if (this.open && Date.now() - this.#heard > this.#silence) this.#lose(silent());
    if (this.state === "idle" || this.state === "waiting") this.#connect();
  }

  #enter(state: api.State, error?: Error): void {
    if (this.state === state && !error) return;
    this.state = state;
    this.emit("state", { state, error });
  }

  async #connect(): Promise<void> {
    this.#detach();
    const turn = this.#turn;
    const { timeout = 10_000, WebSocket: Socket = globalThis.WebSocket as api.WebSocketClass | undefined } =
      this.#options;
    const url = (this.#url = this.#elsewhere.shift() ?? (this.#urls[this.#at % this.#urls.length] as string));
    this.#enter("connecting");
    this.#timer = setTimeout(() => this.#lose(diagnose(url, 0, "", false)), timeout);
    try {
      if (!Socket) {
        throw new TidewireError(
          "no_websocket",
          "this runtime has no WebSocket: give connect one as the option WebSocket, or use Node.js 22 or newer",
        );
      }
      const shown = await this.#token();
      if (turn !== this.#turn) return;
      this.#shown = shown;
      if (shown && shown === this.#stale) return this.#finish(this.#error as Error);
      const protocols = ["tidewire.v1.proto"];
      if (shown) protocols.push(`bearer.${shown}`);
      this.#open(new Socket(url, protocols), url);
    } catch (error) {
      if (turn !== this.#turn) return;
      if (error instanceof TidewireError && !error.retryable) this.#finish(error);
      else this.#lose(error instanceof DOMException ? diagnose(url, 0, "", false) : (error as Error));
    }
  }

  #open(socket: WebSocket, url: string): void {
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const subscriptions = [...this.#members].flatMap((m) => this.#ask(m) ?? []);
      this.send({ connect: { client: this.#options.name ?? "tidewire-js", subscriptions } });
    };
    socket.onmessage = (e) => {
      this.#heard = Date.now();
      try {
        const bytes = new Uint8Array(e.data);
        this.#take(decode(bytes), bytes.length);
      } catch (error) {
        this.#lose(error as Error);
      }
    };
    socket.onclose = (e) => {
      const word = this.#lastWord;
      const error = diagnose(url, e.code, e.reason, this.open);
      this.#ended(word ? refusal(word) : error, error.retryable);
    };
  }

  /** Decides whether to come back after the broker has closed. */
  #ended(error: TidewireError, again: boolean): void {
    const invalid = error.code === "unauthorized";
    if (
      typeof this.#options.token === "function" &&
      (error.code === "token_expired" || (invalid && !this.#unauthorized))
    ) {
      // The same token again would be refused again; so would, if it is not valid, be any other of who made it.
      this.#stale = this.#shown;
      this.#unauthorized = invalid;
      this.#lose(error);
    } else if (again) {
      this.#lose(error);
    } else {
      this.#finish(error);
    }
  }

  /** The session or the attempt is over: waits, and connects again. */
  #lose(error: Error): void {
    const opened = this.open;
    const away = this.#away;
    const lasted = Date.now() - this.#since;
    this.#detach();
    if (this.state === "closed") return;
    this.#error = error;
    if (opened) this.#failed = 0;
    this.#at++;
    let pause = 0;
    if (opened && away !== undefined) {
      this.#pause.failures = 0;
      pause = Math.max(away - Date.now(), 1);
    } else if (opened || ++this.#failed % this.#urls.length === 0) {
      if (opened && lasted >= stable) this.#pause.failures = 0;
      pause = this.#pause.next();
    }
    if (!opened) this.#explain(error);
    this.#enter("waiting", error);
    this.#timer = setTimeout(() => this.#connect(), pause);
  }

  /** Says in the console why connecting fails, each reason once. */
  #explain(error: Error): void {
    if (this.#said !== error.message) this.warn(`${(this.#said = error.message)} (it goes on trying)`);
  }

  warn(...what: unknown[]): void {
    if (this.#options.log !== false) console.warn("tidewire:", ...what);
  }

  /** Forgets the socket, if there is one, and everything of its session. */
  #detach(): void {
    this.#turn++;
    clearTimeout(this.#timer);
    for (const t of this.#timers) clearTimeout(t);
    this.#timers.clear();
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = this.#lastWord = this.#away = undefined;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    this.#numbers.clear();
    this.#outbox.lost();
    for (const m of this.#members) m.lost();
  }

  #take(f: ServerFrame, size: number): void {
    const {
      deliver,
      published,
      ping,
      progress,
      error,
      welcome,
      goAway,
      refreshed,
      subscribed,
      caughtUp,
      gap,
      acked,
    } = f;
    if (deliver) this.#numbers.get(deliver.sub)?.take(f, size);
    else if (published) this.#answered(this.#outbox.answered(published));
    else if (ping) this.send({ pong: { seq: ping.seq } });
    else if (progress) for (const sub of progress.subs) this.#numbers.get(sub)?.take(f, size);
    else if (error) this.#refused(f, error);
    else if (welcome) this.#welcomed(welcome);
    else if (goAway) this.#sentAway(goAway.reconnectAfterMs, goAway.elsewhere);
    else if (refreshed) this.#expires(refreshed.expiresAt);
    else this.#numbers.get((subscribed ?? caughtUp ?? gap ?? acked)?.sub ?? 0)?.take(f, size);
  }

  /** Takes an error frame: of a member, of a settlement, of a Refresh, of a publish frame, or of the connection. */
  #refused(f: ServerFrame, error: WireError): void {
    const member = this.#numbers.get(error.sub);
    if (/^(ack|nack|extend|reject)$/.test(error.request)) member?.refused(error.ref, error);
    else if (error.sub) {
      if (member && /^(subscribe)?$/.test(error.request)) {
        this.#numbers.delete(error.sub);
        member.take(f, 0);
      }
    } else if (error.request === "refresh") this.#refresh(1000);
    else if (error.ref) this.#answered(this.#outbox.refusedFrame(error.ref, error));
    else if (!error.request) this.#lastWord = error;
  }

  #welcomed(f: Welcome): void {
    clearTimeout(this.#timer);
    this.#welcome = f;
    this.#since = Date.now();
    this.#silence = f.pingIntervalMs + f.pingTimeoutMs || 35_000;
    this.#said = "";
    this.#stale = this.#error = undefined;
    this.#unauthorized = false;
    this.#expires(f.expiresAt);
    this.#listen();
    this.#enter("open");
    this.#ready.resolve();
    this.#pump();
  }

  /** Notices when nothing has come for too long: not even a ping. */
  #listen(): void {
    const quiet = Date.now() - this.#heard;
    if (quiet > this.#silence) this.#lose(silent());
    else this.#timer = setTimeout(() => this.#listen(), this.#silence - quiet + 1);
  }

  #sentAway(after: number, elsewhere: readonly string[]): void {
    if (this.#away !== undefined) return;
    this.#away = Date.now() + after;
    // Not from an encrypted connection to a bare one, which would tell the token to the network.
    this.#elsewhere = elsewhere
      .map(address)
      .filter((url) => url.startsWith("wss:") || this.#url.startsWith("ws:"));
    if (this.#outbox.waiting) this.later(farewell, () => this.#leave());
    else this.#leave();
  }

  #leave(): void {
    this.#lose(new TidewireError("going_away", "the broker sends its clients elsewhere", true));
  }

  /** Takes when the token expires, by the broker's clock, and replaces it in time. */
  #expires(at: number): void {
    if (!at || typeof this.#options.token !== "function") return;
    const left = (at - (this.#welcome?.time ?? 0)) / 1000 - (Date.now() - this.#since);
    const lead = Math.min(left / 4, 60_000);
    // The randomness keeps clients apart whose tokens were issued together.
    this.#refresh(left - lead * (1 + Math.random() / 4));
  }

  #refresh(after: number): void {
    this.later(Math.min(after, longest), async () => {
      if (after > longest) return this.#refresh(after - longest);
      const turn = this.#turn;
      const token = await this.#token().catch(() => this.#shown);
      if (turn !== this.#turn) return;
      if (token === this.#shown || !token) return this.#refresh(1000);
      this.#shown = token;
      this.send({ refresh: { ref: refreshRef, token } });
    });
  }

  async #token(): Promise<string | undefined> {
    const { token } = this.#options;
    return typeof token === "function" ? token() : token;
  }

  #answered(pause: number | undefined): void {
    if (pause !== undefined) this.later(pause, () => this.#outbox.again());
    if (this.#away !== undefined && !this.#outbox.waiting) this.#leave();
    this.#pump();
  }

  /** Sends what waits in the outbox, all of this turn in one frame. */
  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    queueMicrotask(() => {
      this.#pumping = false;
      while (this.open && this.#away === undefined) {
        const publish = this.#outbox.batch(this.#welcome?.limits ?? {});
        if (!publish) break;
        this.send({ publish });
      }
      if (!this.#outbox.count) this.#drained?.();
    });
  }

  publish(topic: string, data: api.Data, options: api.PublishOptions = {}): Promise<api.Published> {
    return new Promise((resolve) => {
      if (this.state === "closed" || this.#drained) throw this.#error ?? closed("client");
      resolve(this.#outbox.add(topic, data, options));
    });
  }

  subscribe(filter: string, options?: api.SubscribeOptions): api.Subscription;
  subscribe(filter: string, handler: api.Handler, options?: api.SubscribeOptions): api.Subscription;
  subscribe(
    filter: string,
    first: api.Handler | api.SubscribeOptions = {},
    options: api.SubscribeOptions = {},
  ): api.Subscription {
    return typeof first === "function"
      ? new Subscription(this, filter, options, first)
      : new Subscription(this, filter, first);
  }

  consume(name: string, filter: string, worker: api.Worker, options: api.ConsumeOptions = {}): api.Consumer {
    return new Consumer(this, name, filter, worker, options);
  }

  async history(topic: string, options: api.HistoryOptions = {}): Promise<api.History> {
    return history(this.#urls[this.#at % this.#urls.length] as string, await this.#token(), topic, options);
  }

  begin(m: Member): void {
    if (this.state === "closed") return m.end(this.#error);
    this.#members.add(m);
    const subscribe = this.open && this.#ask(m);
    if (subscribe) this.send({ subscribe });
  }

  /** Gives a member its number, and returns what to send. */
  #ask(m: Member): Subscribe | undefined {
    const subscribe = m.ask();
    if (!subscribe) return;
    this.#numbers.set((m.sub = subscribe.sub = ++this.#last), m);
    return subscribe;
  }

  release(m: Member): void {
    if (this.#numbers.delete(m.sub)) this.send({ unsubscribe: { sub: m.sub } });
    m.sub = 0;
  }

  rest(m: Member, atLeast = 0): void {
    this.later(Math.max(m.pause.next(), atLeast), () => this.begin(m));
  }

  forget(m: Member): void {
    this.#members.delete(m);
    this.release(m);
  }

  send(frame: ClientFrame): void {
    if (this.#socket?.readyState === 1) this.#socket.send(encode(frame));
  }

  later(ms: number, f: () => void): void {
    const t = setTimeout(() => {
      this.#timers.delete(t);
      f();
    }, ms);
    this.#timers.add(t);
  }

  async close({ timeout = 5000 }: { timeout?: number } = {}): Promise<void> {
    if (this.state === "closed") return;
    const drained = deferred();
    this.#drained ??= drained.resolve;
    this.#pump();
    const consumers = [...this.#members].filter((m) => m instanceof Consumer).map((k) => k.close());
    const timer = setTimeout(drained.resolve, timeout);
    await Promise.race([
      Promise.all([drained.promise, ...consumers]),
      new Promise((done) => setTimeout(done, timeout)),
    ]);
    clearTimeout(timer);
    this.#finish();
  }

  /** Ends everything, with an error or because the client was closed. */
  #finish(error?: Error): void {
    if (this.state === "closed") return;
    for (const [name, act] of this.#happenings) page()?.removeEventListener(name, act);
    const why = (this.#error = error ?? closed("client"));
    this.state = "closed";
    this.#outbox.end(why);
    for (const m of this.#members) m.end(error);
    this.#detach();
    this.#ready.reject(why);
    if (error) this.#done.reject(error);
    else this.#done.resolve();
    if (error) this.warn(`${error.message} (it does not come back)`);
    this.emit("state", { state: "closed", error });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
