// The counter of the demo page says who has lost what. Here it is compared with a set.
import { expect, test } from "vitest";

interface Kept {
  first: number;
  highest: number;
  received: number;
  missed: number;
  repeated: number;
  outOfOrder: number;
  holes: [number, number][];
}

interface Counter extends Kept {
  see(n: number, time: number): string;
  what(n: number): string;
}

const file = new URL("../../../demo/counter.js", import.meta.url).href;
const { Counter } = (await import(/* @vite-ignore */ file)) as {
  Counter: new (kept?: Kept | null) => Counter;
};

/** Counts messages whose time follows from their number, as the feed makes them. */
function counted(...numbers: number[]): Counter {
  const counter = new Counter();
  for (const n of numbers) counter.see(n, n * 100);
  return counter;
}

test("numbers without a hole are received, and nothing else", () => {
  expect(counted(7, 8, 9)).toMatchObject({
    first: 7,
    highest: 9,
    received: 3,
    missed: 0,
    repeated: 0,
    outOfOrder: 0,
  });
});

test("a jump is a hole", () => {
  const counter = counted(1, 2, 6);
  expect(counter).toMatchObject({ received: 3, missed: 3, holes: [[3, 5]] });
  expect([0, 1, 2, 3, 5, 6, 7].map((n) => counter.what(n))).toEqual([
    ...["", "received", "received", "missed", "missed", "received", ""],
  ]);
});

test("what comes later closes its hole, out of order", () => {
  expect(counted(1, 6, 3)).toMatchObject({
    received: 3,
    missed: 3,
    outOfOrder: 1,
    holes: [
      [2, 2],
      [4, 5],
    ],
  });
  expect(counted(1, 4, 2, 3)).toMatchObject({ received: 4, missed: 0, outOfOrder: 2, holes: [] });
});

test("what comes again is repeated", () => {
  expect(counted(1, 2, 2, 1)).toMatchObject({ received: 2, repeated: 2, outOfOrder: 0 });
  expect(counted(1, 4, 2, 2)).toMatchObject({ received: 3, missed: 1, repeated: 1, outOfOrder: 1 });
});

test("a lower number that was made later begins another feed", () => {
  const counter = counted(100, 101, 110);
  counter.see(1, 1_000_000);
  expect(counter).toMatchObject({ first: 1, highest: 1, received: 1, missed: 0, repeated: 0 });
});

test("it goes on after a reload where it was", () => {
  const before = counted(1, 2, 5);
  const after = new Counter(JSON.parse(JSON.stringify(before)) as Kept);
  after.see(6, 600);
  after.see(3, 300);
  expect(after).toMatchObject({ received: 5, missed: 1, repeated: 0, outOfOrder: 1, holes: [[4, 4]] });
});

test("the oldest of very many holes are forgotten, and stay missed", () => {
  const counter = new Counter();
  for (let n = 1; n <= 4001; n += 2) counter.see(n, n);
  expect(counter).toMatchObject({ received: 2001, missed: 2000 });
  expect(counter.holes).toHaveLength(1000);
  expect(counter.what(4000)).toBe("missed");
});

test("random deliveries count as a set says", () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9);
  let state = seed;
  const random = (below: number) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor((state / 2147483648) * below);
  };
  for (let run = 0; run < 200; run++) {
    const counter = new Counter();
    const seen = new Set<number>();
    let repeated = 0;
    let outOfOrder = 0;
    let highest = 50;
    for (let i = 0; i < 60; i++) {
      const n = i === 0 ? highest : 50 + random(highest - 49 + 4);
      if (seen.has(n)) repeated++;
      else if (n < highest) outOfOrder++;
      seen.add(n);
      highest = Math.max(highest, n);
      counter.see(n, n * 100);
    }
    const missed = highest - 50 + 1 - seen.size;
    const where = `seed ${seed}, run ${run}`;
    expect(counter, where).toMatchObject({ received: seen.size, missed, repeated, outOfOrder, highest });
    for (let n = 50; n <= highest; n++)
      expect(counter.what(n), where).toBe(seen.has(n) ? "received" : "missed");
  }
});
