// Tokens: where they come from, when they are replaced, and what a refused one means.
import { expect, test, vi } from "vitest";
import { open, outcome, pass, settle, start, virtual, welcome } from "../support/net.js";

virtual();

/** In microseconds of the broker's clock, so long after Welcome. */
const after = (ms: number) => welcome.time! + ms * 1000;

test("a token goes into the handshake, from a string or a function that is asked each time", async () => {
  const { net } = start({ token: "abc" });
  await settle();
  expect(net.last.protocols).toEqual(["tidewire.v1.proto", "bearer.abc"]);
  let n = 0;
  for (const token of [() => `t${++n}`, async () => `t${++n}`]) {
    n = 0;
    const { net } = start({ token });
    await settle();
    expect(net.last.protocols[1]).toBe("bearer.t1");
    net.last.end();
    await pass(500);
    expect(net.last.protocols[1]).toBe("bearer.t2");
  }
});

test("a function that gives no token connects without one", async () => {
  const { net } = start({ token: () => "" });
  await settle();
  expect(net.last.protocols).toEqual(["tidewire.v1.proto"]);
});

test.each([
  () => {
    throw new Error("no session");
  },
  async () => {
    throw new Error("no session");
  },
])("a function that throws is asked again later", async (fail) => {
  let bad = true;
  const { net, states } = start({ token: () => (bad ? (fail() as never) : "good") });
  await settle();
  expect(states).toEqual(["connecting", "waiting no session"]);
  bad = false;
  await pass(500);
  expect(net.last.protocols[1]).toBe("bearer.good");
});

test("a function that hangs costs the attempt, and what it gives late is not used", async () => {
  const waiting: ((token: string) => void)[] = [];
  const { net, client } = start({ token: () => new Promise<string>((resolve) => waiting.push(resolve)) });
  await pass(10_000);
  expect(client.state).toBe("waiting");
  await pass(500);
  expect(waiting.length).toBe(2);
  waiting[0]?.("late");
  await settle();
  expect(net.peers.length).toBe(0);
  waiting[1]?.("new");
  await settle();
  expect(net.last.protocols[1]).toBe("bearer.new");
});

test("what a function gives after close is not used", async () => {
  let give: (token: string) => void = () => {};
  const { net, client } = start({ token: () => new Promise<string>((resolve) => (give = resolve)) });
  await settle();
  await client.close();
  give("late");
  await settle();
  expect(net.peers.length).toBe(0);
});

test("a token is replaced before it expires, by the broker's clock", async () => {
  let n = 0;
  const { client, peer } = await open({ token: () => `t${++n}` }, { expiresAt: after(600_000) });
  const live = setInterval(() => peer.say({ ping: { seq: 1 } }), 20_000);
  await pass(539_000);
  expect(peer.take("refresh")).toEqual([]);
  await pass(1001);
  expect(peer.take("refresh")).toMatchObject([{ token: "t2" }]);
  peer.say({ refreshed: { expiresAt: after(540_000 + 100_000) } }); // 100 s more
  await pass(74_000);
  expect(peer.take("refresh")).toEqual([]);
  await pass(1001);
  expect(peer.take("refresh")).toMatchObject([{ token: "t3" }]);
  clearInterval(live);
  expect(client.state).toBe("open");
});

test("tokens that were issued together are not replaced together", async () => {
  const at = async (chance: number) => {
    vi.mocked(Math.random).mockReturnValue(chance);
    const asked: number[] = [];
    const { client } = await open(
      { token: () => `t${asked.push(Date.now())}` },
      { expiresAt: after(20_000) },
    );
    const before = Date.now();
    await pass(20_000);
    await client.close();
    return asked[1]! - before;
  };
  expect(await at(0)).toBe(15_000);
  expect(await at(0.99)).toBeLessThan(14_000);
});

test("a token for a long time, or for ever, is no timer that fires at once", async () => {
  for (const expiresAt of [0, after(1e11)]) {
    const token = vi.fn(() => "t");
    const { client } = await open({ token }, { expiresAt });
    await pass(10_000);
    expect(token).toHaveBeenCalledTimes(1);
    await client.close();
  }
});

test("the same token again is asked for again, and not sent", async () => {
  let now = "a";
  const { peer } = await open({ token: () => now }, { expiresAt: after(8000) });
  await pass(7000);
  expect(peer.take("refresh")).toEqual([]);
  now = "b";
  await pass(5000);
  expect(peer.take("refresh")).toMatchObject([{ token: "b" }]);
});

test("while a token is replaced the function may throw or hang", async () => {
  let how = "ok";
  const token = async () => {
    if (how === "throw") throw new Error("x");
    return how === "hang" ? new Promise<string>(() => {}) : how;
  };
  const { client, net, peer } = await open({ token }, { expiresAt: after(8000) });
  how = "throw";
  await pass(6500);
  how = "new";
  await pass(5000);
  expect(peer.take("refresh")).toMatchObject([{ token: "new" }]);
  how = "hang";
  peer.say({ refreshed: { expiresAt: after(8000) } });
  await pass(5000);
  peer.say({ error: { code: "token_expired", message: "x" } }).end(3505);
  expect(client.state).toBe("waiting");
  await pass(500);
  expect(client.state).toBe("connecting");
  await pass(10_000);
  expect(client.state).toBe("waiting");
  how = "newer";
  await pass(60_000);
  expect(net.last.protocols[1]).toBe("bearer.newer");
});

test("a refused refresh changes nothing: another token is asked for", async () => {
  let n = 0;
  const { client, peer } = await open({ token: () => `t${++n}` }, { expiresAt: after(8000) });
  await pass(6000);
  expect(peer.take("refresh")).toMatchObject([{ token: "t2" }]);
  peer.say({ error: { request: "refresh", code: "unauthorized", message: "x" } });
  expect(client.state).toBe("open");
  await pass(5000);
  expect(peer.take("refresh")).toMatchObject([{ token: "t3" }]);
});

test("what a function gives after the connection was lost is not sent over the next one", async () => {
  let give: (token: string) => void = () => {};
  let n = 0;
  const token = () => (++n === 2 ? new Promise<string>((resolve) => (give = resolve)) : `t${n}`);
  const { net, peer } = await open({ token }, { expiresAt: after(8000) });
  await pass(6000);
  peer.end();
  await pass(500);
  net.last.welcome();
  give("late");
  await settle();
  expect(net.last.take("refresh")).toEqual([]);
});

test.each([
  [3500, "unauthorized"],
  [3505, "token_expired"],
])("after %i who has the same token gives up, and who has another comes back", async (code, name) => {
  for (const opened of [true, false]) {
    let now = "a";
    const { net, client } = start({ token: () => now });
    await settle();
    if (opened) net.last.welcome();
    net.last.end(code, "x");
    expect(client.state).toBe("waiting");
    now = "b";
    await pass(500);
    expect(net.last.protocols[1]).toBe("bearer.b");
    net.last.end(code, "x");
    await pass(2000);
    expect(client.state).toBe("closed");
    expect(await outcome(client.done)).toBe(`error ${name}`);
    expect(net.peers.length).toBe(2);
    expect(vi.getTimerCount()).toBe(0);
  }
  const { net, client } = start();
  await settle();
  net.last.end(code, "x");
  expect(client.state).toBe("closed");
  expect(await outcome(client.done)).toBe(`error ${name}`);
});

test("a token that was good again is not stale", async () => {
  let now = "a";
  const { net, client } = start({ token: () => now });
  await settle();
  net.last.end(3500);
  now = "b";
  await pass(500);
  net.last.welcome().end();
  now = "a"; // the clocks were apart, say
  await pass(2000);
  net.last.welcome();
  expect(client.state).toBe("open");
});
