import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Consumer } from "../src/consumer.js";
import type { Link } from "../src/member.js";
import type { ConsumeOptions } from "../src/types.js";
import type { ClientFrame, Subscribed } from "../src/wire/frames.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A member of a consumer whose worker never ends, and what it has sent. */
function member(options: ConsumeOptions = {}) {
  const sent: ClientFrame[] = [];
  const nothing = () => {};
  const link: Link = {
    pump: nothing,
    emit: () => false,
    begin: nothing,
    release: nothing,
    rest: nothing,
    forget: nothing,
    send: (frame) => sent.push(frame),
    later: nothing,
    warn: nothing,
  };
  const consumer = new Consumer(link, "w", "job", () => new Promise(nothing), options);
  return {
    consumer,
    join: (ackWaitMs: number) => consumer.subscribed({ ackWaitMs } as Subscribed),
    deliver: (offset: number) =>
      consumer.deliver({
        term: "a",
        partition: 0,
        generation: 1,
        records: [{ offset }],
        attempts: [1],
      } as never),
    /** What was extended in the time: how often, and by how much. */
    async extended(ms: number) {
      sent.length = 0;
      await vi.advanceTimersByTimeAsync(ms);
      return sent.map((frame) => frame.extend?.byMs);
    },
  };
}

test("a third of the ack wait, as the broker tells it, whatever was asked for", async () => {
  const m = member({ settings: { ackWaitMs: 90_000 } });
  m.join(600);
  m.deliver(1);
  expect(await m.extended(199)).toEqual([]);
  expect(await m.extended(401)).toEqual([600, 600, 600]);
});

test("another ack wait holds from the next connection on, for what is being worked on too", async () => {
  const m = member();
  m.join(30_000);
  m.deliver(1);
  m.consumer.lost();
  m.join(300);
  expect(await m.extended(200)).toEqual([300, 300]);
});

test("not at all, if it is not wanted or nothing is worked on", async () => {
  const unwanted = member({ extend: false });
  unwanted.join(300);
  unwanted.deliver(1);
  expect(await unwanted.extended(1000)).toEqual([]);
  const idle = member();
  idle.join(300);
  expect(await idle.extended(1000)).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});
