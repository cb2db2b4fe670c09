// Frames that no honest broker sends. Decoding them throws the one error that it has,
// or gives what protobuf-es reads too; it never hangs, and it allocates nothing that
// the frame does not hold.
import { readdirSync, readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { type DescMessage, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { describe, expect, it } from "vitest";
import { decode, encode } from "../../src/wire/codec.js";
import type { ClientFrame } from "../../src/wire/frames.js";
import { Frames, forProtobuf, fromProtobuf, ServerFrame, type Value } from "./contract.js";

const seed = Number(process.env.TIDEWIRE_SEED ?? Math.floor(Math.random() * 2 ** 32));
console.log(`hostile frames: TIDEWIRE_SEED=${seed}`);

const malformed = "malformed frame";
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const unhex = (text: string) => new Uint8Array(Buffer.from(text.replaceAll(" ", ""), "hex"));

/** What decoding gives, or undefined if it throws as it should; every other error is a mistake. */
function tryDecode(bytes: Uint8Array): Value | undefined {
  try {
    return decode(bytes) as Value;
  } catch (err) {
    if ((err as Error).message !== malformed) throw new Error(`${hex(bytes)} gives ${err}`, { cause: err });
    return undefined;
  }
}

/** A varint. */
function varint(value: number | bigint): number[] {
  const bytes: number[] = [];
  let left = BigInt(value);
  for (; left > 127n; left >>= 7n) bytes.push(Number(left & 127n) | 128);
  return [...bytes, Number(left)];
}

const field = (number: number, wire: number, ...value: number[]) => [...varint(number * 8 + wire), ...value];
const block = (number: number, ...value: number[]) => field(number, 2, ...varint(value.length), ...value);
const frame = (...bytes: number[]) => Uint8Array.from(bytes);
const deliver = (...body: number[]) => frame(...block(4, ...body));

describe("what is malformed throws", () => {
  const cases: Record<string, Uint8Array> = {
    "a tag alone": frame(0x22),
    "a length beyond the frame": unhex("22 05 0801"),
    "a length beyond the message": deliver(...field(6, 2, 5), ...field(1, 0, 7)),
    "a length of 2^31": unhex("22 8080808008 0801"),
    "a length of 2^32": unhex("22 8080808010 0801"),
    "a length of 2^53": unhex("22 8080808080808010 0801"),
    "a length of 2^64-1": unhex("22 ffffffffffffffffff01 0801"),
    "a length of 2^63 inside": deliver(...field(6, 2, ...varint(2n ** 63n))),
    "a varint that ends with the message": deliver(0x08, 0x80),
    "a varint beyond the message": frame(...block(4, 0x08, 0x80), 0x01),
    "a varint of 11 bytes": deliver(0x20, ...Array(10).fill(0x80), 0x00),
    "a tag of 11 bytes": frame(...Array(10).fill(0x88), 0x00),
    "a number of 8 bytes beyond the message": deliver(...block(6, ...field(10, 1, 1, 2, 3, 4))),
    "8 unknown bytes of which 7 are there": deliver(...field(100, 1, 1, 2, 3, 4, 5, 6, 7)),
    "4 unknown bytes of which 3 are there": deliver(...field(100, 5, 1, 2, 3)),
    "an unknown block that is too long": deliver(...field(100, 2, 2, 1)),
    "field number 0": deliver(0x00, 0x01),
    "field number 0 with a block": deliver(0x02, 0x01, 0x01),
    "a field number above 2^29": deliver(...varint(2n ** 32n + 8n), 0x07),
    "a group": deliver(...field(100, 3), ...field(100, 4)),
    "the end of a group": deliver(...field(100, 4, 1)),
    "a group of a known number": deliver(...field(1, 3), ...field(1, 4)),
    "wire type 6": deliver(...field(100, 6, 1)),
    "wire type 7": deliver(...field(100, 7, 1)),
    "a number as 8 bytes": deliver(...field(1, 1, 1, 2, 3, 4, 5, 6, 7, 8)),
    "a number as a block": deliver(...block(1, 1)),
    "a number as 4 bytes": deliver(...field(1, 5, 1, 2, 3, 4)),
    "a text as a number": deliver(...field(3, 0, 1)),
    "a message as a number": deliver(...field(6, 0, 1)),
    "a payload as 8 bytes": deliver(...block(6, ...field(3, 1, 1, 2, 3, 4, 5, 6, 7, 8))),
    "a time as a number": deliver(...block(6, ...field(11, 0, 1))),
    "a truth as a block": deliver(...block(6, ...block(8, 1))),
    "a list of numbers as 8 bytes": deliver(...field(7, 1, 1, 1, 1, 1, 1, 1, 1, 1)),
    "a list of numbers as 4 bytes": deliver(...field(7, 5, 1, 1, 1, 1)),
    "packed numbers of which the last is cut": deliver(...block(7, 1, 2, 0x80)),
    "packed numbers that run into what follows": deliver(...block(7, 1, 0x80), 1, 1),
  };
  for (const [name, bytes] of Object.entries(cases)) {
    it(name, () => {
      expect(() => decode(bytes)).toThrow(new Error(malformed));
      // The next frame is not troubled.
      expect(decode(unhex("4a020807"))).toStrictEqual({ ping: { seq: 7 } });
    });
  }
});

describe("what is odd, but well-formed", () => {
  it("lists of numbers may be packed, loose or both", () => {
    const bytes = frame(...block(7, ...block(1, 1, 0xac, 2), ...field(1, 0, 3), ...block(1), ...block(1, 4)));
    expect(decode(bytes).progress?.subs).toStrictEqual([1, 300, 3, 4]);
  });

  it("of two frames in one, the last counts", () => {
    expect(decode(frame(...block(9, 8, 1), ...block(5, 8, 2)))).toStrictEqual({ caughtUp: { sub: 2 } });
    expect(decode(frame(...block(9, 8, 1), ...block(9)))).toStrictEqual({ ping: { seq: 0 } });
  });

  it("unknown fields and frames of every wire type are skipped, whatever they hold", () => {
    const unknown = [
      ...field(100, 0, ...varint(2n ** 64n - 1n)),
      ...field(101, 1, 255, 255, 255, 255, 255, 255, 255, 255),
      ...block(2 ** 29 - 1, 0xff, 0xff),
      ...field(9, 5, 255, 255, 255, 255),
    ];
    expect(decode(frame(...unknown.slice(0, -5), ...block(9, ...unknown, 8, 7, ...unknown)))).toStrictEqual({
      ping: { seq: 7 },
    });
    expect(decode(frame(...block(19, 0xff)))).toStrictEqual({});
    expect(decode(frame())).toStrictEqual({});
  });

  it("numbers may be longer than they need", () => {
    expect(decode(frame(0x4a, 0x85, 0x80, 0x00, 0x88, 0x80, 0x00, 0x87, 0x00))).toStrictEqual({
      ping: { seq: 7 },
    });
    expect(
      decode(frame(...block(9, 8, 0x87, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00))),
    ).toStrictEqual({ ping: { seq: 7 } });
  });

  it("text that is not UTF-8 has the replacement character, also after the like of it", () => {
    const reason = (...bytes: number[]) =>
      decode(frame(...block(8, ...block(2, ...bytes)))).goAway?.elsewhere[0];
    expect(reason(0xc3, 0xa9)).toBe("é");
    expect(reason(0xe9)).toBe("\ufffd");
    expect(reason(0x61, 0x80)).toBe("a\ufffd");
    expect(reason(0xed, 0xa0, 0x80)).toBe("\ufffd\ufffd\ufffd");
    expect(reason(0xef, 0xbb, 0xbf, 0x61)).toBe("\ufeffa");
    expect(reason(...Array(1000).fill(0xff))).toBe("\ufffd".repeat(1000));
  });
});

describe("what is decoded", () => {
  const message = (topic: string, payload: number[]) =>
    block(6, ...block(1, ...Buffer.from(topic)), ...block(3, ...payload));

  it("has bytes that are views of the frame", () => {
    const whole = Uint8Array.from([1, 2, 3, ...deliver(...message("a", [7, 8])), 4]);
    const records = decode(whole.subarray(3, -1)).deliver!.records;
    expect(records[0]!.payload).toStrictEqual(Uint8Array.of(7, 8));
    expect(records[0]!.payload.buffer).toBe(whole.buffer);
  });

  it("shares no list and no message with another", () => {
    const bytes = deliver(...message("a", []), ...message("a", [1]), ...block(6, ...block(5)));
    const [first, second, third] = decode(bytes).deliver!.records;
    expect(first).not.toBe(second);
    expect(third!.headers).toStrictEqual([{ name: "", value: "" }]);
    expect(first!.headers).toStrictEqual([]);
    expect(() => (first!.headers as unknown[]).push(1)).toThrow(TypeError);
    expect(decode(bytes)).toStrictEqual(decode(bytes));
  });

  it("tells texts apart that are almost the same as the one before", () => {
    const topics = [
      "aa",
      "ab",
      "ba",
      "aa",
      "aa",
      "a",
      "",
      "aaa",
      "",
      "a".repeat(63),
      "a".repeat(64),
      "a".repeat(64),
      "é",
      "é",
      "aa",
    ];
    const records = decode(deliver(...topics.flatMap((topic) => message(topic, [])))).deliver!.records;
    expect(records.map(({ topic }) => topic)).toStrictEqual(topics);
  });

  it("has no names but those of the contract", () => {
    const names = new Set(["__proto__", "constructor", "toString"].flatMap((name) => [...Buffer.from(name)]));
    const bytes = deliver(
      ...message("__proto__", [...names]),
      ...block(6, ...block(5, ...block(1, ...Buffer.from("__proto__")), ...block(2, 120))),
    );
    const [, record] = decode(bytes).deliver!.records;
    expect(record!.headers).toStrictEqual([{ name: "__proto__", value: "x" }]);
    expect(Object.getPrototypeOf(record)).toBe(Object.prototype);
    expect(Object.keys(Object.prototype)).toStrictEqual([]);
  });
});

describe("encoding", () => {
  it.each([-1, -0.5, 2 ** 53, Infinity, -Infinity])(
    "refuses %d, which no number of the contract can be",
    (number) => {
      expect(() => encode({ publish: { ref: number } })).toThrow(RangeError);
      expect(() => encode({ publish: { messages: [{ expiresAt: number }] } })).toThrow(RangeError);
      expect(() => encode({ nack: { delayMs: NaN } })).toThrow(RangeError);
    },
  );

  it("cuts what is behind the point", () => {
    const whole = { ref: 127, repeatAgeMs: 16_383, messages: [{ expiresAt: 256 ** 6 - 1 }] };
    const more = { ref: 127.9, repeatAgeMs: 16_383.5, messages: [{ expiresAt: 256 ** 6 - 0.5 }] };
    expect(encode({ publish: more })).toStrictEqual(encode({ publish: whole }));
  });

  it("writes text that is no Unicode with the replacement character", () => {
    expect(hex(encode({ refresh: { token: "\ud800" } }))).toBe("32051203efbfbd");
  });

  it("takes nothing that the contract does not have", () => {
    const flow = Object.assign(Object.create({ sub: 7 }), { later: 1, credit: 9 });
    expect(hex(encode({ later: 1, refresh: { token: "t", later: {} } } as unknown as ClientFrame))).toBe(
      "3203120174",
    );
    expect(hex(encode({ flow }))).toBe("3a0408071009");
    expect(encode({}).length).toBe(0);
  });
});

const goldens = readdirSync(new URL("../../../../protocol/testdata/frames/", import.meta.url))
  .map((file) =>
    JSON.parse(
      readFileSync(new URL(`../../../../protocol/testdata/frames/${file}`, import.meta.url), "utf8"),
    ),
  )
  .filter(({ from }) => from === "server")
  .flatMap(({ kind, frames }) =>
    frames.map(({ name, proto }: { name: string; proto: string }) => [`${kind}: ${name}`, proto] as const),
  );

it.each(goldens)("a frame that ends early throws, wherever it ends: %s", (_, proto) => {
  const bytes = unhex(proto);
  // A first field that nobody knows is a frame of its own.
  const whole = hex(bytes).startsWith("a206") ? [0, 8] : [0];
  for (let length = 0; length < bytes.length; length++) {
    if (whole.includes(length)) expect(decode(bytes.subarray(0, length))).toStrictEqual({});
    else expect(tryDecode(bytes.slice(0, length)), `${length} bytes`).toBeUndefined();
  }
});

describe(`damaged and random bytes (seed ${seed})`, { timeout: 120_000 }, () => {
  /**
   * What protobuf-es reads otherwise: it cuts a 32-bit number that is too large and
   * drops a byte order mark; and from 2^53 on a double cannot tell numbers apart.
   */
  function same(a: unknown, b: unknown): boolean {
    if (typeof a === "number") return a === b || a >= 2 ** 53 || (a >= 2 ** 32 && a % 2 ** 32 === b);
    if (typeof a === "string") return a === b || a === `\ufeff${b}`;
    if (typeof a !== "object" || typeof b !== "object" || a instanceof Uint8Array)
      return isDeepStrictEqual(a, b);
    const keys = Object.keys(a as Value).sort();
    return (
      isDeepStrictEqual(keys, Object.keys(b as Value).sort()) &&
      keys.every((key) => same((a as Value)[key], (b as Value)[key]))
    );
  }

  /** True if a message is there twice that should be there once: protobuf-es merges them, for us the last one counts. */
  function hasTwice(desc: DescMessage, bytes: Uint8Array): boolean {
    const reader = new BinaryReader(bytes);
    const seen = new Set<number>();
    while (reader.pos < reader.len) {
      const [number, wire] = reader.tag();
      const known = desc.fields.find((one) => one.number === number);
      if (!known?.message) {
        reader.skip(wire, number);
        continue;
      }
      if (known.fieldKind !== "list" && seen.has(number)) return true;
      seen.add(number);
      if (hasTwice(known.message, reader.bytes())) return true;
    }
    return false;
  }

  /** What we read must be what protobuf-es reads. True if we read it. */
  function compare(bytes: Uint8Array): boolean {
    const got = tryDecode(bytes);
    if (!got) return false;
    let want: Value;
    try {
      want = fromProtobuf(ServerFrame, fromBinary(ServerFrame, bytes));
    } catch (err) {
      // Of what it refuses, we read two things: text that is not UTF-8, and tags in more bytes than they need.
      const meant =
        (err as NodeJS.ErrnoException).code === "ERR_ENCODING_INVALID_ENCODED_DATA" ||
        /illegal tag/.test(`${err}`);
      if (!meant) throw new Error(`${hex(bytes)} is refused by protobuf-es`, { cause: err });
      return true;
    }
    if (!same(got, want) && !hasTwice(ServerFrame, bytes)) expect(got, hex(bytes)).toStrictEqual(want);
    return true;
  }

  const written = (source: Frames) =>
    toBinary(ServerFrame, forProtobuf(ServerFrame, source.message(ServerFrame)));

  it("a message that ends early in a whole frame", () => {
    const source = new Frames(seed);
    let read = 0;
    for (let i = 0; i < 4_000; i++) {
      const bytes = written(source);
      const body = bytes.subarray(bytes.findIndex((byte, at) => at > 0 && byte < 128) + 1);
      if (compare(frame(...block(bytes[0]! >> 3, ...body.subarray(0, source.below(body.length + 1))))))
        read++;
    }
    expect(read).toBeGreaterThan(500);
  });

  it("bytes that were changed", () => {
    const source = new Frames(seed + 1);
    let read = 0;
    for (let i = 0; i < 8_000; i++) {
      const bytes = written(source);
      for (let j = source.below(3) + 1; j--; ) bytes[source.below(bytes.length)] = source.below(256);
      if (compare(bytes)) read++;
    }
    expect(read).toBeGreaterThan(800);
  });

  it("bytes that were never a frame", () => {
    const source = new Frames(seed + 2);
    let read = 0;
    for (let i = 0; i < 30_000; i++) {
      const bytes = Array.from({ length: source.below(40) }, () =>
        source.pick([
          source.below(256),
          source.below(128),
          source.below(16) * 8 + source.pick([0, 1, 2, 5]),
          source.below(4),
        ]),
      );
      if (compare(source.below(4) ? frame(...block(1 + source.below(13), ...bytes)) : frame(...bytes)))
        read++;
    }
    expect(read).toBeGreaterThan(500);
  });
});

describe("a megabyte that is made to be slow", () => {
  const size = 1 << 20;
  const filled = (unit: number[]) =>
    Array.from({ length: Math.floor(size / unit.length) }, () => unit).flat();
  const big = (number: number, body: number[]) =>
    Uint8Array.from([...varint(number * 8 + 2), ...varint(body.length)].concat(body));
  const cases: Record<string, Uint8Array> = {
    "empty records": big(4, filled(block(6))),
    "records with a header each": big(4, filled(block(6, ...block(5)))),
    "one record with many headers": big(4, [...varint(6 * 8 + 2), ...varint(size), ...filled(block(5))]),
    "packed numbers": big(7, [...varint(1 * 8 + 2), ...varint(size), ...filled([1])]),
    "loose numbers": big(7, filled(field(1, 0, 1))),
    "one text again and again": big(8, filled(block(3, ...Array(60).fill(97)))),
    "texts that differ at the end": big(
      8,
      filled([...block(3, ...Array(60).fill(97), 98), ...block(3, ...Array(60).fill(97), 99)]),
    ),
    "one text": big(8, [...varint(3 * 8 + 2), ...varint(size), ...filled([0xff])]),
    "unknown fields": big(4, filled(field(100, 0, 1))),
    "frames in one": Uint8Array.from(filled(block(9, 8, 1))),
    "long numbers": big(4, filled(field(1, 0, ...Array(9).fill(0x80), 0))),
  };
  // Milliseconds as a rule; half a million records are seconds on a busy machine, and would be minutes if the time grew
  // with their square.
  it.each(Object.entries(cases))("%s", { timeout: 60_000 }, (_, bytes) => {
    const start = performance.now();
    decode(bytes);
    expect(performance.now() - start).toBeLessThan(20_000);
  });
});
