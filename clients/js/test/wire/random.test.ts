// Random frames against protobuf-es: the same bytes, the same values.
import { isDeepStrictEqual } from "node:util";
import { type Message, toBinary } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { decode, encode } from "../../src/wire/codec.js";
import type { ClientFrame as Sent } from "../../src/wire/frames.js";
import {
  ClientFrame,
  Frames,
  forProtobuf,
  fromProtobuf,
  protobufBytes,
  ServerFrame,
  type Value,
  withoutBrokers,
} from "./contract.js";

const seed = Number(process.env.TIDEWIRE_SEED ?? Math.floor(Math.random() * 2 ** 32));
const frames = 20_000;
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
console.log(`random frames: TIDEWIRE_SEED=${seed}`);

it(`encodes as protobuf-es does (seed ${seed})`, { timeout: 120_000 }, () => {
  const source = new Frames(seed);
  for (let i = 0; i < frames; i++) {
    const frame = source.message(ClientFrame);
    const want = protobufBytes(ClientFrame, withoutBrokers(ClientFrame, frame));
    const got = encode(frame as Sent);
    if (Buffer.compare(got, want) !== 0)
      expect(hex(got), `frame ${i}: ${JSON.stringify(frame)}`).toBe(hex(want));
  }
});

/** Adds what our codec skips: fields that nobody knows yet, of each wire type. */
function addUnknown(source: Frames): (message: Message) => void {
  const data = [[7], [1, 2, 3, 4, 5, 6, 7, 8], [3, 1, 2, 3], [], [], [1, 2, 3, 4]];
  return (message) => {
    if (source.below(4)) return;
    const wireType = source.pick([0, 1, 2, 5]);
    message.$unknown = [
      { no: source.pick([40, 1000, 2 ** 29 - 1]), wireType, data: Uint8Array.from(data[wireType]!) },
    ];
  };
}

it(`decodes what protobuf-es writes (seed ${seed})`, { timeout: 120_000 }, () => {
  const source = new Frames(seed + 1);
  for (let i = 0; i < frames; i++) {
    const frame: Value = source.message(ServerFrame);
    const message = forProtobuf(ServerFrame, frame, addUnknown(source));
    const bytes = toBinary(ServerFrame, message);
    const got = decode(bytes) as Value;
    // Not what protobuf-es would read from the bytes: it drops a byte order mark at the front of a text.
    const want = fromProtobuf(ServerFrame, message);
    if (!isDeepStrictEqual(got, want)) expect(got, `frame ${i}: ${hex(bytes)}`).toStrictEqual(want);
  }
});
