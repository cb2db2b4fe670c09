// The state machine of the connection: every arrow of the drawing in client.ts.
import { expect, test, vi } from "vitest";
import { connect } from "../../src/index.js";
import { Net, open, outcome, pass, settle, start, virtual, welcome } from "../support/net.js";

virtual(0.5);

test("connects at once, in the background", async () => {
  const { net, client, states } = start({ name: "test/1" });
  expect(client.state).toBe("connecting");
  expect(await outcome(client.ready)).toBe("pending");
  await settle();
  expect(net.last.url).toBe("ws://broker.test/v1/ws");
  expect(net.last.protocols).toEqual(["tidewire.v1.proto"]);
  expect(net.last.binaryType).toBe("arraybuffer");
  net.last.open();
  expect(net.last.sent).toEqual([
    { connect: expect.objectContaining({ client: "test/1", subscriptions: [] }) },
  ]);
  expect(client.state).toBe("connecting");
  net.last.welcome();
  expect(states).toEqual(["connecting", "open"]);
  expect(await outcome(client.ready)).toBe(undefined);
});

test.each([
  ["http://a", "ws://a/v1/ws"],
  ["https://a:1/", "wss://a:1/v1/ws"],
  ["ws://a/x?y=1#z", "ws://a/x?y=1"],
  ["wss://a", "wss://a/v1/ws"],
])("reads the address %s", async (given, url) => {
  const { net } = start({}, given);
  await settle();
  expect(net.last.url).toBe(url);
});

test.each(["ftp://a", "a b", "", "//a"])("refuses the address %j at once", (url) => {
  expect(() => connect(url)).toThrow(expect.objectContaining({ code: "bad_url" }));
});

test("an attempt that takes too long has failed, and what it does later is harmless", async () => {
  const { net, client, states } = start({ timeout: 2000 });
  await settle();
  const old = net.last.open();
  const { onmessage, onclose, onopen } = old;
  await pass(1999);
  expect(client.state).toBe("connecting");
  await pass(1);
  expect(states).toEqual(["connecting", "waiting unreachable"]);
  expect(old.left).toBe(true);
  expect([old.onmessage, old.onclose, old.onopen]).toEqual([null, null, null]);
  expect([onmessage, onclose, onopen]).not.toContain(null);
  old.welcome();
  old.end(3500);
  expect(client.state).toBe("waiting");
});

test("the pause between attempts is random, doubles, and has a bound", async () => {
  for (const chance of [0, 0.5, 0.999999]) {
    vi.mocked(Math.random).mockReturnValue(chance);
    const { net, client } = start();
    const pauses: number[] = [];
    for (let n = 0; n < 12; n++) {
      await settle();
      net.last.end();
      const before = Date.now();
      const count = net.peers.length;
      while (net.peers.length === count) await vi.advanceTimersToNextTimerAsync();
      pauses.push(Date.now() - before);
    }
    const bounds = pauses.map((_, n) => Math.min(60_000, 500 * 2 ** (n + 1)));
    pauses.forEach((pause, n) => {
      expect(Math.abs(pause - (500 + chance * (bounds[n]! - 500)))).toBeLessThan(2);
    });
    await client.close();
  }
});

test("only a session that has lasted makes the pause short again", async () => {
  const { net } = start();
  const lose = async (after: number) => {
    await settle();
    net.last.welcome();
    await pass(after);
    net.last.end();
    const before = Date.now();
    const count = net.peers.length;
    while (net.peers.length === count) await vi.advanceTimersToNextTimerAsync();
    return Date.now() - before;
  };
  expect(await lose(0)).toBe(750);
  expect(await lose(9000)).toBe(1250);
  expect(await lose(9000)).toBe(2250);
  expect(await lose(10_001)).toBe(750);
});

const comesBack = [1000, 1001, 1005, 1006, 1011, 1012, 1015, 3000, 3001, 3499, 4000, 4499];
const staysAway = [1002, 1003, 1007, 1008, 1009, 1010, 3501, 3502, 3504, 3999, 4500, 4999];

test.each(comesBack)("comes back after %i", async (code) => {
  const { net, client, peer } = await open();
  peer.end(code, "why");
  expect(client.state).toBe("waiting");
  await pass(1000);
  expect(net.peers.length).toBe(2);
});

test.each(staysAway)("does not come back after %i", async (code) => {
  for (const opened of [true, false]) {
    const { net, client, states } = start();
    await settle();
    if (opened) net.last.welcome();
    else net.last.open();
    net.last.end(code, "why");
    expect(client.state, `opened: ${opened}`).toBe("closed");
    expect(states.at(-1)).toMatch(/^closed ./);
    expect(await outcome(client.done)).toMatch(/^error /);
    expect(await outcome(client.ready)).toEqual(opened ? undefined : expect.stringMatching(/^error /));
    await pass(100_000);
    expect(net.peers.length).toBe(1);
    expect(await outcome(client.publish("a", 1))).toBe(await outcome(client.done));
    expect(await outcome(client.subscribe("a").done)).toBe(await outcome(client.done));
  }
});

test("the error that announces a close says why", async () => {
  const { client, peer } = await open();
  peer.say({ error: { code: "origin_not_allowed", message: "go home" } });
  expect(client.state).toBe("open");
  peer.end(3502, "x");
  await expect(client.done).rejects.toMatchObject({ code: "origin_not_allowed", message: "go home" });
});

test("several addresses are tried in turn, and the pause comes when all have failed", async () => {
  const { net, client } = start({}, ["http://a", "http://b", "http://c"]);
  const before = Date.now();
  for (const host of ["a", "b", "c"]) {
    await settle();
    expect(net.last.url).toContain(`//${host}/`);
    net.last.end();
    await pass(1);
  }
  expect(client.state).toBe("waiting");
  expect(Date.now() - before).toBeLessThan(10);
  await pass(750);
  expect(net.last.url).toContain("//a/");
  net.last.welcome().end();
  expect(net.peers.length).toBe(4);
  await pass(1250);
  expect(net.peers.length).toBe(5);
  expect(net.last.url).toContain("//b/"); // that one may be down
});

test("goes away when told to: finishes, waits as long as told, goes elsewhere first", async () => {
  const { net, client, peer } = await open();
  const first = client.publish("a", 1);
  peer.say({ goAway: { reconnectAfterMs: 3000, elsewhere: ["http://b", "http://c"] } });
  const second = client.publish("a", 2);
  expect(client.state).toBe("open");
  expect(peer.take("publish").length).toBe(1); // nothing new
  peer.say({ published: { term: "t", results: [{ ref: 1, offset: 7 }] } });
  expect(await first).toMatchObject({ position: "pt-7" });
  expect(client.state).toBe("waiting");
  expect(peer.left).toBe(true);
  await pass(2990);
  expect(net.peers.length).toBe(1);
  await pass(10);
  expect(net.last.url).toContain("//b/");
  net.last.end();
  await pass(1250);
  expect(net.last.url).toContain("//c/");
  net.last.welcome();
  expect(net.last.take("publish").length).toBe(1);
  expect(await outcome(second)).toBe("pending");
});

test("goes away without its answers after a while, or when it is closed", async () => {
  for (const how of ["time", "close"]) {
    const { net, client, peer } = await open();
    void client.publish("a", 1).catch(() => {});
    peer.say({ goAway: { reconnectAfterMs: 20_000 } });
    if (how === "close") peer.end(3000);
    else await pass(4999);
    if (how === "time") expect(client.state).toBe("open");
    await pass(1);
    expect(client.state).toBe("waiting");
    await pass(14_900);
    expect(net.peers.length).toBe(1);
    await pass(101 + (how === "close" ? 5000 : 0));
    expect(net.peers.length).toBe(2);
  }
});

test("who is sent away again and again comes back later and later", async () => {
  vi.mocked(Math.random).mockReturnValue(0.999999);
  const { net } = start();
  const pauses: number[] = [];
  for (let n = 0; n < 4; n++) {
    await settle();
    net.last.welcome().say({ goAway: {} });
    const [before, count] = [Date.now(), net.peers.length];
    while (net.peers.length === count) await vi.advanceTimersToNextTimerAsync();
    pauses.push(Math.round((Date.now() - before) / 1000));
  }
  expect(pauses).toEqual([0, 2, 4, 8]);
});

test("never goes from an encrypted connection to a bare one", async () => {
  const { net } = start({}, "https://a");
  await settle();
  net.last.welcome().say({ goAway: { elsewhere: ["http://evil", "ws://evil", "wss://good"] } });
  await pass(1);
  expect(net.last.url).toContain("wss://good/");
  net.last.end();
  await pass(2000);
  expect(net.last.url).toContain("wss://a/");
});

test("an address in GoAway that cannot be read costs no answers", async () => {
  const { net, client, peer } = await open();
  void client.publish("a", 1).catch(() => {});
  peer.say({ goAway: { elsewhere: ["node-b:7070"] } });
  expect(client.state).toBe("open"); // its answer is outstanding
  peer.say({ published: { term: "t", results: [{ ref: 1, offset: 7 }] } });
  await pass(1);
  expect(net.last.url).toContain("//broker.test/");
});

test.each([
  ["GoAway", { reconnectAfterMs: 4_000_000_000 }, {}],
  ["Welcome", undefined, { pingIntervalMs: 4_000_000_000, pingTimeoutMs: 4_000_000_000 }],
])("times that are too long for a timer are no short ones: %s", async (_, goAway, more) => {
  const set = vi.spyOn(globalThis, "setTimeout");
  const every = vi.spyOn(globalThis, "setInterval");
  const { net, peer } = await open({}, more);
  if (goAway) peer.say({ goAway });
  await pass(100_000);
  expect(net.peers.length).toBe(1);
  for (const [, ms] of [...set.mock.calls, ...every.mock.calls]) expect(ms).toBeLessThan(2 ** 31);
});

test("an endless time for an attempt, or to close, is no short one", async () => {
  const { client } = start({ timeout: Infinity });
  await pass(100_000);
  expect(client.state).toBe("connecting");
  void client.publish("a", 1).catch(() => {});
  const closing = client.close({ timeout: Infinity });
  await pass(100_000);
  expect(await outcome(closing)).toBe("pending");
});

test("answers pings, and gives up a connection that is silent", async () => {
  const { net, client, peer, states } = await open();
  await pass(20_000);
  peer.say({ ping: { seq: 42 } });
  expect(peer.take("pong")).toEqual([{ seq: 42 }]);
  await pass(34_000);
  expect(client.state).toBe("open");
  await pass(20_000); // noticed at most half of that later
  expect(states).toContain("waiting silence");
  expect(peer.left).toBe(true);
  expect(net.peers.length).toBe(2);
});

test("a socket that never closes harms nobody", async () => {
  const { net, client, peer } = await open();
  await pass(60_000);
  net.last.welcome();
  expect(client.state).toBe("open");
  expect(peer.readyState).toBe(2);
  peer.end(3500);
  expect(client.state).toBe("open");
});

/** Has the globals of a page. */
function page() {
  const target = new EventTarget();
  const document = { visibilityState: "visible", hidden: false };
  vi.stubGlobal("addEventListener", target.addEventListener.bind(target));
  vi.stubGlobal("removeEventListener", target.removeEventListener.bind(target));
  vi.stubGlobal("document", document);
  return {
    tell: (type: string) => target.dispatchEvent(new Event(type)),
    see: (visible: boolean) => {
      document.hidden = !visible;
      document.visibilityState = visible ? "visible" : "hidden";
      target.dispatchEvent(new Event("visibilitychange"));
    },
  };
}

test("offline drops the connection and waits; online connects at once", async () => {
  const { tell } = page();
  const { net, client, peer, states } = await open();
  tell("offline");
  expect(states.at(-1)).toBe("waiting offline");
  expect(peer.left).toBe(true);
  tell("offline");
  tell("online");
  expect(client.state).toBe("connecting");
  await settle();
  expect(net.peers.length).toBe(2);
  tell("online"); // while it connects already
  await settle();
  expect(net.peers.length).toBe(2);
  net.last.welcome();
  tell("online");
  await settle();
  expect(client.state).toBe("open");
  tell("offline");
  await pass(60_000); // it goes on trying: the browser may be wrong
  expect(net.peers.length).toBeGreaterThan(2);
});

test("pagehide drops everything, and nothing happens until pageshow", async () => {
  const { tell, see } = page();
  for (const moment of ["connecting", "open", "waiting"]) {
    const { net, client } = start();
    await settle();
    if (moment === "open") net.last.welcome();
    if (moment === "waiting") net.last.end();
    expect(client.state).toBe(moment);
    tell("pagehide");
    expect(client.state).toBe("idle");
    see(false); // as browsers do, behind pagehide
    await pass(200_000);
    expect(client.state).toBe("idle");
    expect(net.peers.length).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
    see(true);
    tell("pageshow");
    expect(client.state).toBe("connecting");
    await settle();
    expect(net.peers.length).toBe(2);
    net.last.welcome();
    expect(client.state).toBe("open");
    await client.close();
  }
});

test("a page that is hidden and waits goes on waiting; one that is shown connects at once", async () => {
  const { see } = page();
  const { net, client, peer } = await open();
  peer.end();
  see(false);
  expect(client.state).toBe("waiting");
  see(true);
  expect(client.state).toBe("connecting");
  await settle();
  expect(net.peers.length).toBe(2);
});

test("after a sleep a dead connection is noticed when the page is shown, or when the next timer fires", async () => {
  for (const how of ["shown", "timer", "clock set back"]) {
    const { see } = page();
    const { net, client, states } = await open();
    vi.setSystemTime(Date.now() + (how === "clock set back" ? -3_600_000 : 3_600_000));
    if (how === "shown") see(true);
    else await pass(18_000);
    expect(states, how).toContain("waiting silence");
    await settle();
    expect(net.peers.length).toBe(2);
    await client.close();
  }
});

test("a short sleep costs nothing", async () => {
  const { see } = page();
  const { client, net } = await open();
  vi.setSystemTime(Date.now() + 30_000);
  see(true);
  expect(client.state).toBe("open");
  expect(net.peers.length).toBe(1);
});

test("close ends a client in each state, at once if nothing is to be done", async () => {
  const { tell } = page();
  for (const moment of ["connecting", "token", "open", "waiting", "idle", "closed"]) {
    const { net, client, states } = start(moment === "token" ? { token: () => new Promise(() => {}) } : {});
    await settle();
    if (moment === "open") net.last.welcome();
    if (moment === "waiting") net.last.end();
    if (moment === "idle") tell("pagehide");
    if (moment === "closed") await client.close();
    const peers = net.peers.length;
    await client.close();
    expect(client.state).toBe("closed");
    expect(states.filter((s) => s === "closed").length).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
    for (const type of ["online", "pageshow", "offline", "pagehide", "visibilitychange"]) tell(type);
    await pass(100_000);
    expect(net.peers.length).toBe(peers);
    expect(client.state).toBe("closed");
    expect(await outcome(client.done)).toBe(undefined);
    expect(await outcome(client.publish("a", 1))).toBe("error closed");
    for (const p of net.peers) {
      expect(p.left || p.readyState === 3).toBe(true);
      p.end(1000);
      p.welcome();
    }
    expect(client.state).toBe("closed");
  }
});

test("a client that is closed from within what it tells stays closed", async () => {
  for (const moment of ["connecting", "open", "waiting", "idle"]) {
    const { tell } = page();
    const { net, client } = start();
    await settle();
    const off = client.on("state", ({ state }) => {
      if (state === moment) void client.close();
    });
    net.last.welcome();
    if (moment === "idle") tell("pagehide");
    else net.last.end();
    await pass(100_000);
    expect(client.state, moment).toBe("closed");
    expect(vi.getTimerCount(), moment).toBe(0);
    off();
  }
});

test("a listener that throws harms nobody, and can be taken off", async () => {
  const complain = vi.spyOn(console, "error").mockImplementation(() => {});
  const { net, client, states } = start();
  client.on("state", () => {
    throw new Error("mine");
  });
  let told = 0;
  const off = client.on("state", () => told++);
  await settle();
  net.last.welcome();
  off();
  net.last.end();
  expect(states).toEqual(["connecting", "open", "waiting connection_lost"]);
  expect(complain).toHaveBeenCalledTimes(2);
  expect(told).toBe(1);
});

test("frames that cannot be read cost the connection, and not more", async () => {
  const { net, client, peer } = await open();
  peer.raw(Uint8Array.of(10, 200, 1));
  expect(client.state).toBe("waiting");
  await pass(1000);
  net.last.welcome();
  expect(client.state).toBe("open");
});

test("frames that make no sense do no harm", async () => {
  const { client, peer } = await open();
  peer.say(
    { deliver: { sub: 99, records: [{}] } },
    { subscribed: { sub: 99 } },
    { progress: { subs: [99] } },
  );
  peer.say(
    { published: { results: [{ ref: 99, offset: 1 }, {}] } },
    { acked: { sub: 99, ref: 1 } },
    { caughtUp: { sub: 5 } },
  );
  peer.say({ gap: { sub: 3 } }, { error: { ref: 77, code: "x" } }, { refreshed: {} });
  peer.raw(new Uint8Array());
  peer.raw(Uint8Array.of(250, 7, 0)); // a frame of the future
  expect(client.state).toBe("open");
});

test("a Welcome without limits, or a second one, is none", async () => {
  const { client, peer } = await open({}, { limits: undefined });
  void client.publish("a", 1).catch(() => {});
  expect(client.state).toBe("connecting");
  peer.welcome();
  expect(client.state).toBe("open");
  expect(peer.take("publish").length).toBe(1);
  const timers = vi.getTimerCount();
  peer.say({ welcome });
  expect(vi.getTimerCount()).toBe(timers);
});

test("says once in the console why it cannot connect, unless told not to", async () => {
  const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
  for (const log of [true, false]) {
    warn.mockClear();
    const { net, client } = start({ log });
    for (let n = 0; n < 3; n++) {
      await pass(60_000);
      net.last.end();
    }
    expect(warn.mock.calls.length).toBe(log ? 1 : 0);
    if (log) expect(warn.mock.calls[0]?.join(" ")).toMatch(/no broker answers.*broker.test/);
    await client.close();
  }
});

test("where there is no WebSocket it says so, and gives up", async () => {
  vi.stubGlobal("WebSocket", undefined);
  const client = connect("http://a", { log: false });
  await settle();
  expect(await outcome(client.done)).toBe("error no_websocket");
  expect(vi.getTimerCount()).toBe(0);
});

test("an error event of a socket that has one for errors is not left to crash the program", async () => {
  const { net } = start();
  await settle();
  expect(net.last.onerror).toBeTypeOf("function");
  net.last.end();
  expect(net.last.onerror).toBeTypeOf("function"); // the package ws tells of errors after close, too
});

test("await using closes", async () => {
  const net = new Net();
  {
    await using client = connect("http://a", { WebSocket: net.WebSocket });
    expect(client.state).toBe("connecting");
  }
  await settle();
  expect(net.peers.length).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
});
