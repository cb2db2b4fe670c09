// The golden frames, which every implementation of the protocol reads:
// protocol/testdata/README.md says what is in them.
import { readdirSync, readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import type { DescMessage } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { decode, encode } from "../../src/wire/codec.js";
import type { ClientFrame } from "../../src/wire/frames.js";
import { client, server } from "../../src/wire/tables.js";
import { ClientFrame as Client, protobufBytes, ServerFrame, type Value } from "./contract.js";

const directory = new URL("../../../../protocol/testdata/frames/", import.meta.url);

interface Golden {
  from: "client" | "server";
  kind: string;
  frames: { name: string; proto: string; fields: unknown }[];
}

const goldens = readdirSync(directory).map(
  (file) => JSON.parse(readFileSync(new URL(file, directory), "utf8")) as Golden,
);

const camel = (name: string) => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

/** What is a text in the JSON mapping of protobuf, since it may not fit a double. */
const whole = new Set(
  "offset time expires_at behind generation after through from missed ack_wait_ms backoff_base_ms backoff_cap_ms max_in_flight_bytes delay_ms by_ms repeat_age_ms".split(
    " ",
  ),
);

/** The fields of a golden frame as the codec has them. */
function fromFields(value: unknown, name = ""): unknown {
  if (Array.isArray(value)) return value.map((one) => fromFields(one, name));
  if (name === "payload") return new Uint8Array(Buffer.from(value as string, "base64"));
  if (whole.has(name) && /^\d+$/.test(value as string)) return Number(value);
  if (typeof value !== "object" || value === null) return value;
  const known = Object.entries(value).filter(([key]) => key !== "origin");
  return Object.fromEntries(known.map(([key, one]) => [camel(key), fromFields(one, key)]));
}

/** Leaves out what has its default, as the golden frames do; bytes become plain for comparing. */
function withoutDefaults(value: unknown): unknown {
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (Array.isArray(value)) return value.map(withoutDefaults);
  if (typeof value !== "object" || value === null) return value;
  const set = Object.entries(value).filter(([, one]) => one && (one as string).length !== 0);
  return Object.fromEntries(set.map(([key, one]) => [key, withoutDefaults(one)]));
}

/** The part of a frame that the client has a use for. */
function known(desc: DescMessage, frame: unknown): Value {
  const value = (frame ?? {}) as Value;
  return Object.fromEntries(
    desc.fields
      .filter((field) => value[field.localName] !== undefined)
      .map((field) => {
        const it = value[field.localName];
        if (!field.message) return [field.localName, it];
        const { message } = field;
        return [
          field.localName,
          Array.isArray(it) ? it.map((one) => known(message, one)) : known(message, it),
        ];
      }),
  );
}

const unhex = (text: string) => new Uint8Array(Buffer.from(text, "hex"));

for (const { from, kind, frames } of goldens) {
  if (kind === "unknown_to_servers") continue;
  describe(`golden frames: ${kind}`, () => {
    for (const { name, proto, fields } of frames) {
      if (from === "server") {
        it(`decodes: ${name}`, () => {
          expect(withoutDefaults(decode(unhex(proto)))).toEqual(
            withoutDefaults(known(ServerFrame, fromFields(fields))),
          );
        });
      } else {
        it(`encodes: ${name}`, () => {
          const frame = fromFields(fields) as Value;
          const left = !isDeepStrictEqual(known(Client, frame), frame);
          const want = left ? protobufBytes(Client, frame) : unhex(proto);
          expect(Buffer.from(encode(frame as ClientFrame))).toEqual(Buffer.from(want));
        });
      }
    }
  });
}

it("has golden frames of every kind", () => {
  for (const [side, table] of [
    ["client", client],
    ["server", server],
  ] as const) {
    const kinds = goldens.filter((golden) => golden.from === side).map((golden) => camel(golden.kind));
    const frames = table
      .split(";")[0]!
      .split("|")
      .filter(Boolean)
      .map((cell) => cell.replace(/[,\d]+/g, "")); // a kind of frame that the client leaves out has no name
    expect(kinds).toEqual(expect.arrayContaining(frames));
  }
});
