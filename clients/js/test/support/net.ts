// A network without a network: connections whose other end is in the hands of a
// test, which speaks frames. What a test says arrives at once.
import { afterEach, beforeEach, vi } from "vitest";
import { connect } from "../../src/index.js";
import type { Client, ConnectOptions, WebSocketClass } from "../../src/types.js";
import type { ClientFrame, ServerFrame, Welcome } from "../../src/wire/frames.js";
import { type Deep, hear, say } from "./wire.js";

/** Gives the tests of a file a clock of their own, and always the same chance. */
export function virtual(chance = 0): void {
  beforeEach(() => {
    vi.useFakeTimers({ now: 1_700_000_000_000 });
    vi.spyOn(Math, "random").mockReturnValue(chance);
  });
  afterEach(() => {
    vi.restoreAllMocks();
    vi.unstubAllGlobals();
    vi.useRealTimers();
  });
}

/** One connection: the client sees a WebSocket, the test the broker's end of it. */
export class Peer {
  readyState = 0;
  binaryType = "blob";
  onopen: (() => void) | null = null;
  onmessage: ((e: { data: unknown }) => void) | null = null;
  onclose: ((e: { code: number; reason: string }) => void) | null = null;
  onerror: ((e: unknown) => void) | null = null;
  /** What the client has sent. */
  readonly sent: ClientFrame[] = [];
  /** What the client has sent and the test has not looked at. */
  unread: ClientFrame[] = [];
  /** Called for each frame of the client. */
  hears: ((f: ClientFrame) => void) | undefined;
  /** The client has called close. */
  left = false;

  constructor(
    readonly net: Net,
    readonly url: string,
    readonly protocols: string[],
  ) {
    net.peers.push(this);
    net.onpeer?.(this);
  }

  send(bytes: Uint8Array): void {
    if (this.readyState !== 1) return; // in silence, as a browser does
    const frame = hear(bytes);
    this.sent.push(frame);
    this.unread.push(frame);
    this.hears?.(frame);
  }

  close(): void {
    this.left = true;
    if (this.readyState < 2) this.readyState = 2; // and stays there: the other end is silent
  }

  open(): this {
    this.readyState = 1;
    this.onopen?.();
    return this;
  }

  /** The broker says something. */
  say(...frames: Deep<ServerFrame>[]): this {
    for (const f of frames) this.raw(say(f));
    return this;
  }

  raw(bytes: Uint8Array): void {
    if (this.readyState === 1) this.onmessage?.({ data: bytes.slice().buffer });
  }

  welcome(more: Deep<Welcome> = {}): this {
    if (this.readyState === 0) this.open();
    this.take("connect");
    return this.say({ welcome: { ...welcome, ...more } });
  }

  /** The connection ends; 1006 if nobody says why. */
  end(code = 1006, reason = ""): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  /** Takes all that was sent and not taken, of one kind or of all. */
  take<K extends keyof ClientFrame>(kind: K): NonNullable<ClientFrame[K]>[] {
    const taken = this.unread.flatMap((f) => (f[kind] ? [f[kind]] : []));
    this.unread = this.unread.filter((f) => !f[kind]);
    return taken as NonNullable<ClientFrame[K]>[];
  }
}

export const welcome: Deep<Welcome> = {
  limits: { frameBytes: 10_000, inFlight: 4 },
  pingIntervalMs: 25_000,
  pingTimeoutMs: 10_000,
  time: 1_700_000_000_000_000,
};

export class Net {
  readonly peers: Peer[] = [];
  onpeer: ((p: Peer) => void) | undefined;
  readonly WebSocket: WebSocketClass;

  constructor() {
    const net = this;
    this.WebSocket = class extends Peer {
      constructor(url: string, protocols: string[]) {
        super(net, url, protocols);
      }
    } as unknown as WebSocketClass;
  }

  get last(): Peer {
    const peer = this.peers.at(-1);
    if (!peer) throw new Error("nobody has connected");
    return peer;
  }
}

/** Lets run what does not wait for time. */
export const settle = () => vi.advanceTimersByTimeAsync(0);
export const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

export interface World {
  net: Net;
  client: Client;
  /** The states that the client has told, and the codes of their errors. */
  states: string[];
}

/** A client, and the network that it uses. */
export function start(options: ConnectOptions = {}, urls: string | string[] = "http://broker.test"): World {
  const net = new Net();
  const client = connect(urls, { log: false, WebSocket: net.WebSocket, ...options });
  const states: string[] = [client.state];
  client.on("state", ({ state, error }) => {
    const code = (error as { code?: string } | undefined)?.code ?? error?.message;
    states.push(code ? `${state} ${code}` : state);
  });
  return { net, client, states };
}

/** A client whose connection is open, and the broker's end of that. */
export async function open(
  options: ConnectOptions = {},
  more: Deep<Welcome> = {},
): Promise<World & { peer: Peer }> {
  const world = start(options);
  await settle();
  return { ...world, peer: world.net.last.welcome(more) };
}

/** Tells the outcome of a promise that may not have one yet: its value, its error, or "pending". */
export async function outcome<T>(p: Promise<T>): Promise<T | string> {
  const pending = Promise.resolve()
    .then(() => Promise.resolve())
    .then(() => "pending");
  return Promise.race([p.catch((e) => (e?.code ? `error ${e.code}` : `error ${e?.message ?? e}`)), pending]);
}
