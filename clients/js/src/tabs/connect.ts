import { connect } from "../index.js";
import type { Client, ConnectOptions, Handler, Message, SubscribeOptions, WebSocketClass } from "../types.js";
import type { Env } from "./hub.js";
import { type Tab, TabSocket } from "./socket.js";

/** What `connectTabs` takes besides the address. */
export interface TabsOptions extends ConnectOptions {
  /**
   * Which tabs share a connection, besides that they are of one origin and connect to
   * the same address. Default: those whose tokens say the same, but for the times in
   * them. Give it where the page does not have the token, as with a cookie: one name for
   * each user.
   */
  group?: string | undefined;
}

/** Claims that differ from one token of the same rights to the next. */
const passing = ["exp", "iat", "nbf", "jti"];

/** A leader that says nothing for so long is overthrown. */
const patience = 3000;

/** Ids that an application chose, of messages that may come back as an echo. */
const maxChosen = 1000;

/** What a token says of who has it, as far as that can be read. */
function claims(token: string): string {
  try {
    const part = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
    const all = Object.entries(JSON.parse(atob(part))).filter(([name]) => !passing.includes(name));
    if (all.length) return JSON.stringify(all.sort());
  } catch {
    // It is no JWT.
  }
  return token;
}

/** Names a group. Tokens are not to be read from the names of locks. */
async function name(url: string | string[], protocols: string[], group: string | undefined): Promise<string> {
  const [protocol, bearer = ""] = protocols;
  const who = group === undefined ? ["token", bearer && claims(bearer.slice(7))] : ["group", group];
  const urls = [url].flat().map((u) => new URL(u, globalThis.location?.href).href);
  const text = JSON.stringify([...urls, protocol, ...who]);
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return `tidewire1:${[...new Uint8Array(digest, 0, 16)].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
}

/** Connects in the browser that is given, which has all that it takes. */
export function connectIn(env: Env, url: string | string[], options: TabsOptions): Client {
  const { group, timeout = 10_000, WebSocket: Real = globalThis.WebSocket } = options;
  const tab: Tab = {
    env,
    Real,
    group: (protocols) => name(url, protocols, group),
    awake: Promise.resolve(),
    patience: Math.min(patience, timeout / 4),
  };
  class Socket extends TabSocket {
    constructor(url: string, protocols: string[]) {
      super(tab, url, protocols);
    }
  }
  const client = connect(url, { ...options, WebSocket: Socket as unknown as WebSocketClass });
  watch(tab, client);
  quieten(client);
  return client;
}

/** Leaves before the page is frozen, and finds out when it is shown whether the leader was. */
function watch(tab: Tab, client: Client): void {
  const { page } = tab.env;
  if (!page) return;
  const over = new AbortController();
  const on = (event: string, act: () => void) => page.addEventListener(event, act, { signal: over.signal });
  on("freeze", () => {
    tab.awake = new Promise((resume) => page.addEventListener("resume", resume, { once: true }));
    tab.socket?.freeze();
  });
  on("visibilitychange", () => tab.socket?.probe());
  const end = () => over.abort();
  client.done.then(end, end);
}

/**
 * `echo: false` means what this tab publishes, and the broker knows only the
 * session of all: so the tab leaves out its own messages, by their ids.
 */
function quieten(client: Client): void {
  const prefix = `${crypto.randomUUID()}-`;
  const chosen = new Set<string>();
  const { publish, subscribe } = client;
  let made = 0;
  let quiet = false;
  client.publish = (topic, data, options) => {
    const id = options?.id ?? prefix + (made++).toString(36);
    if (quiet && options?.id) {
      chosen.add(id);
      if (chosen.size > maxChosen) chosen.delete(chosen.values().next().value!);
    }
    return publish.call(client, topic, data, { ...options, id });
  };
  const own = (m: Message) => m.id.startsWith(prefix) || chosen.has(m.id);
  client.subscribe = (filter: string, first?: Handler | SubscribeOptions, second?: SubscribeOptions) => {
    const handler = typeof first === "function" ? first : undefined;
    const options = handler ? second : (first as SubscribeOptions | undefined);
    const all = subscribe.bind(client) as (
      filter: string,
      ...rest: unknown[]
    ) => ReturnType<Client["subscribe"]>;
    if (options?.echo !== false) return all(filter, first, second);
    quiet = true;
    const loud = { ...options, echo: undefined };
    if (handler) return all(filter, (m: Message) => (own(m) ? undefined : handler(m)), loud);
    const sub = all(filter, loud);
    const loop = sub[Symbol.asyncIterator].bind(sub);
    sub[Symbol.asyncIterator] = async function* () {
      for await (const m of { [Symbol.asyncIterator]: loop }) if (!own(m)) yield m;
    };
    return sub;
  };
}
