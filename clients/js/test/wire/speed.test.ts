// What the codec costs: bytes to load, and time for each record. Times are compared
// with those of protobuf-es, measured in turns, so that a busy machine slows both.
import { gzipSync } from "node:zlib";
import { fromBinary } from "@bufbuild/protobuf";
import { build } from "esbuild";
import { expect, it } from "vitest";
import { Frames, protobufBytes, ServerFrame } from "./contract.js";

// As a page has it: in vitest's form of a module each constant is a look-up.
const { outputFiles } = await build({
  entryPoints: [new URL("../../src/wire/codec.ts", import.meta.url).pathname],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  write: false,
});
const bundle = outputFiles[0]!.contents;
const { decode } = (await import(
  `data:text/javascript;base64,${Buffer.from(bundle).toString("base64")}`
)) as typeof import("../../src/wire/codec.js");

it("codec and tables take at most 2,048 bytes", () => {
  const size = gzipSync(bundle, { level: 9 }).length;
  console.log(`codec and tables: ${size} bytes`);
  expect(size).toBeLessThanOrEqual(2_048);
});

const records = 500;

/** A frame of small records. */
function delivery(source: Frames, topics: string[], id: number): Uint8Array {
  const letters = [..."abcdefghijklmnopqrstuvwxyz0123456789"];
  const record = (_: unknown, i: number) => ({
    topic: topics[i % topics.length],
    id: Array.from({ length: id }, () => source.pick(letters)).join(""),
    payload: new Uint8Array(64).fill(97),
    offset: 1_000_000 + i,
    time: 1_767_366_245_000_006 + i,
  });
  const deliver = {
    sub: 1,
    term: "1z141z3",
    after: 1,
    through: records,
    records: Array.from({ length: records }, record),
  };
  return protobufBytes(ServerFrame, { deliver });
}

/** Shortest time in milliseconds of each function over many turns. */
function measure(...functions: (() => void)[]): number[] {
  const best = functions.map(() => Infinity);
  for (let turn = 0; turn < 40; turn++) {
    for (const [i, run] of functions.entries()) {
      const start = performance.now();
      for (let j = 0; j < 5; j++) run();
      best[i] = Math.min(best[i]!, (performance.now() - start) / 5);
    }
  }
  return best;
}

it.each([
  ["one topic", ["orders.created.eu"], 20],
  ["ten topics", Array.from({ length: 10 }, (_, i) => `room.${i}.chat`), 36],
  ["no ids", ["orders.created.eu"], 0],
  ["topics beyond ASCII", ["café.menu", "café.orders"], 20],
])(
  "decodes small records at least twice as fast as protobuf-es: %s",
  { timeout: 60_000 },
  (name, topics, id) => {
    const bytes = delivery(new Frames(1), topics, id);
    const kept: unknown[] = [];
    const keep = (it: unknown) => {
      kept[0] = it;
    };
    const each = bytes.length / records;
    const [ours, theirs, copying] = measure(
      () => keep(decode(bytes)),
      () => keep(fromBinary(ServerFrame, bytes)),
      () => keep(Array.from({ length: records }, (_, i) => bytes.slice(i * each, (i + 1) * each))),
    ).map((time) => records / time / 1_000) as [number, number, number];
    const rate = (it: number) => `${it.toFixed(2)} million/s`;
    console.log(
      `records, ${name}: ${rate(ours)}; protobuf-es ${rate(theirs)}; copying bytes alone ${rate(copying)}`,
    );
    expect(ours / theirs).toBeGreaterThan(2);
  },
);
