import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Hub } from "../../src/tabs/hub.js";
import * as wire from "../../src/tabs/wire.js";
import { build, type Field, frame, get, parse } from "../../src/tabs/wire.js";
import { decode, encode } from "../../src/wire/codec.js";
import { World } from "./world.js";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const pass = () => vi.advanceTimersByTimeAsync(20);
const bytes = (text: string) => new TextEncoder().encode(text);

/** A hub, what it has sent to the broker, and guests. */
function start() {
  const world = new World();
  const page = world.open();
  const sent: Field[][] = [];
  const given: Field[][] = [];
  const takeApart = (b: Uint8Array): Field[] => {
    const [[type, body]] = parse(b) as [Field];
    return [[type, type, 0], ...parse(body as Uint8Array)];
  };
  const hub = new Hub(
    page.env,
    "g",
    "n",
    (b) => sent.push(takeApart(b)),
    (b) => given.push(takeApart(new Uint8Array(b))),
  );
  const guest = async (id: string) => {
    const other = world.open();
    const channel = new other.env.Channel(`g:${id}`);
    const heard: Field[][] = [];
    channel.onmessage = ({ data }) => {
      if (!data.b) return;
      heard.push(takeApart(new Uint8Array(data.b)));
    };
    other.env.locks.request(`g:${id}`, () => new Promise(() => {}));
    await pass();
    hub.hello(id);
    await pass();
    const say = async (type: number, fields: Field[], n = "n") => {
      channel.postMessage({ n, b: frame(type, fields).buffer });
      await pass();
    };
    return { page: other, heard, say, channel };
  };
  const answer = (type: number, fields: Field[]) => hub.take(frame(type, fields).buffer);
  return { hub, sent, given, guest, answer };
}

const published = (ref: number, resume = 0): Field[] => [
  [1, ref, 0],
  [2, build([[1, bytes("topic"), 2]]), 2],
  [2, build([[1, bytes("topic"), 2]]), 2],
  [3, resume, 0],
];

/** Results of publishing: refused in a way that is worth repeating, or stored. */
const results = (refs: number[], refused: boolean): Field[] =>
  refs.map((ref) => [2, build([[1, ref, 0], refused ? [5, build([[5, 1, 0]]), 2] : [3, 7, 0]]), 2]);

/** The numbers of the answered messages in a Published frame. */
const refs = (fields: Field[]) =>
  fields.filter((f) => f[0] === 2 && f[2] === 2).map((f) => get(parse(f[1] as Uint8Array), 1));

it("gives each published message a number of its own in the session, and back", async () => {
  const { hub, sent, guest, answer } = start();
  const [a, b] = [await guest("a"), await guest("b")];
  await a.say(2, published(1));
  await b.say(2, published(1));
  hub.send(frame(2, published(5)));
  const [first, second, third] = sent.map((f) => get(f.slice(1), 1)) as [number, number, number];
  expect([second, third]).toEqual([first + 2, first + 4]);
  const own = answer(2, results([third, second, first, first + 1, third + 1, second + 1], false));
  await pass();
  expect(refs(parse(parse(new Uint8Array(own!))[0]![1] as Uint8Array))).toEqual([5, 6]);
  expect(a.heard.map((f) => refs(f.slice(1)))).toEqual([[1, 2]]);
  expect(b.heard.map((f) => refs(f.slice(1)))).toEqual([[1, 2]]);
  expect(answer(2, results([first], false))).toBeUndefined();
});

it("lets nothing pass a refused message of the same tab, whatever other tabs resume", async () => {
  const { sent, guest, answer } = start();
  const [a, b] = [await guest("a"), await guest("b")];
  await a.say(2, published(1));
  const first = get(sent[0]!.slice(1), 1) as number;
  answer(2, results([first, first + 1], true));
  // It does not know yet.
  await a.say(2, published(3));
  expect(sent).toHaveLength(1);
  expect(a.heard.map((f) => refs(f.slice(1)))).toEqual([
    [1, 2],
    [3, 4],
  ]);
  // Of the other nothing was refused: what it resumes is nothing of this session.
  await b.say(2, published(1, 1));
  expect(get(sent[1]!.slice(1), 3)).toBe(0);
  await a.say(2, published(5, 1));
  expect(get(sent[2]!.slice(1), 3)).toBe(1);
  await a.say(2, published(7));
  expect(sent).toHaveLength(4);
});

it("lets nothing of another tab pass that it has sent behind what was under way when a tab resumes", async () => {
  const { hub, sent, given, guest, answer } = start();
  const [a, b, c] = [await guest("a"), await guest("b"), await guest("c")];
  await a.say(2, published(1));
  await b.say(2, published(1));
  hub.send(frame(2, published(1)));
  const first = get(sent[0]!.slice(1), 1) as number;
  answer(2, results([first, first + 1], true));
  // What is under way is being refused, but the tabs will know it only when the first one has resumed.
  await a.say(2, published(3, 1));
  expect(sent.map((f) => get(f.slice(1), 3))).toEqual([0, 0, 0, 1]);
  await b.say(2, published(3));
  hub.send(frame(2, published(3)));
  await pass();
  expect(sent).toHaveLength(4);
  expect(b.heard.map((f) => refs(f.slice(1)))).toEqual([[3, 4]]);
  expect(given.map((f) => refs(f.slice(1)))).toEqual([[3, 4]]);
  await c.say(2, published(1)); // it had nothing under way
  expect(sent).toHaveLength(5);
  // The broker refuses nothing any more: what the others resume is theirs alone.
  answer(2, results([first + 6, first + 7], false));
  await b.say(2, published(5, 1));
  hub.send(frame(2, published(5, 1)));
  await c.say(2, published(3));
  expect(sent.slice(5).map((f) => get(f.slice(1), 3))).toEqual([0, 0, 0]);
});

it("tells the refusal of a whole frame to whose it was, and nobody else", async () => {
  const { sent, guest, answer } = start();
  const [a, b] = [await guest("a"), await guest("b")];
  await a.say(2, published(1));
  const first = get(sent[0]!.slice(1), 1) as number;
  const error: Field[] = [
    [1, first, 0],
    [5, 1, 0],
    [7, bytes("publish"), 2],
  ];
  expect(answer(10, error)).toBeUndefined();
  await pass();
  expect(get(a.heard[0]!.slice(1), 1)).toBe(1);
  expect(b.heard).toEqual([]);
  await a.say(2, published(3));
  expect(sent).toHaveLength(1);
  // What the leader is refused is its own; why the broker closes, everybody's.
  expect(answer(10, [[1, 5, 0], ...error.slice(1)])).toBeDefined();
  expect(answer(10, [[3, bytes("internal"), 2]])).toBeDefined();
  await pass();
  expect(b.heard).toHaveLength(1);
});

it("heeds what is said to it, and not what is said to another leader", async () => {
  const { sent, guest } = start();
  const a = await guest("a");
  await a.say(2, published(1), "former");
  expect(sent).toEqual([]);
});

it("takes back what a guest has subscribed to when that says goodbye, and when it dies", async () => {
  const { sent, guest } = start();
  const [a, b] = [await guest("a"), await guest("b")];
  for (const g of [a, b]) await g.say(3, [[1, 1, 0]]);
  const [first, second] = sent.map((f) => get(f.slice(1), 1));
  a.channel.postMessage({ n: "n", bye: true });
  await pass();
  expect(sent[2]).toEqual([
    [4, 4, 0],
    [1, first, 0],
  ]);
  b.page.crash();
  await pass();
  expect(sent[3]).toEqual([
    [4, 4, 0],
    [1, second, 0],
  ]);
});

it("delivers in frames of the same length, which is what they cost", async () => {
  const { hub, sent, guest } = start();
  const a = await guest("a");
  for (const sub of [1, 200, 20_000]) {
    await a.say(3, [[1, sub, 0]]);
    const real = get(sent.at(-1)!.slice(1), 1) as number;
    const record = build([[1, bytes("topic"), 2]]);
    const { buffer } = frame(4, [
      [1, real, 0],
      [6, record, 2],
    ]);
    const size = buffer.byteLength;
    let got = 0;
    a.channel.onmessage = ({ data }) => (got = data.b.byteLength);
    expect(hub.take(buffer)).toBeUndefined();
    await pass();
    expect(got).toBe(size);
    expect(get(parse(parse(new Uint8Array(buffer))[0]![1] as Uint8Array), 1)).toBe(sub);
  }
  expect(hub.take(frame(4, [[1, 7, 0]]).buffer)).toBeDefined();
});

it("knows the numbers of frames as the codec has them", () => {
  for (const name of ["connect", "publish", "subscribe", "unsubscribe", "pong", "refresh", "flow"]) {
    const [[type]] = parse(encode({ [name]: {} })) as [Field];
    expect([name, type]).toEqual([name, constant(name)]);
  }
  for (const name of [
    ...["welcome", "published", "subscribed", "deliver", "caughtUp", "gap", "progress"],
    ...["goAway", "ping", "error", "acked"], // and what the core has no use for
  ]) {
    expect(Object.keys(decode(frame(constant(name)!, [])))).toEqual([name]);
  }
});

/** A constant of the module, by the name of its frame. */
function constant(name: string): number | undefined {
  const all = wire as unknown as Record<string, number>;
  return all[name.replace(/[A-Z]/g, "_$&").toUpperCase()];
}
