// The broker's end of the codec: what the client encodes is decoded here, and the
// other way round, by the same tables. That the tables are right is for test/wire.
import type { ClientFrame, ServerFrame } from "../../src/wire/frames.js";
import {
  BOOL,
  BYTES,
  client,
  DOUBLE,
  FIXED64,
  MESSAGE,
  OPTIONAL,
  REPEATED,
  STRING,
  server,
} from "../../src/wire/tables.js";

interface Field {
  name: string;
  kind: number;
  mark: string;
}

type Fields = Record<string, unknown>;

const parse = (table: string): Field[][] =>
  table.split(";").map((row) =>
    [...row.matchAll(/([a-z]*)(\d*)(.)/gi)].map(([, name = "", kind, mark = ""]) => ({
      name,
      kind: Number(kind),
      mark,
    })),
  );

const [asked, told] = [parse(client), parse(server)];
const wire = (kind: number) => Math.min(kind >> 1, 2);

function varint(value: number): number[] {
  const out: number[] = [];
  let rest = BigInt(value);
  for (; rest > 127n; rest >>= 7n) out.push(Number(rest & 127n) | 128);
  return [...out, Number(rest)];
}

function value(kind: number, v: unknown): number[] {
  if (kind >= MESSAGE) return lengthed(message(told[kind - MESSAGE]!, v as Fields));
  if (kind === STRING) return lengthed([...new TextEncoder().encode(v as string)]);
  if (kind === BYTES) return lengthed([...(v as Uint8Array)]);
  if (kind === FIXED64) return [...new Uint8Array(new BigUint64Array([BigInt(v as number)]).buffer)];
  return varint(Number(v));
}

const lengthed = (bytes: number[]) => [...varint(bytes.length), ...bytes];

function message(fields: Field[], m: Fields): number[] {
  return fields.flatMap(({ name, kind, mark }, i) => {
    const v = m[name];
    if (
      !name ||
      v === undefined ||
      (mark !== OPTIONAL && kind < MESSAGE && mark !== REPEATED && (!v || (v as string).length === 0))
    )
      return [];
    return (mark === REPEATED ? (v as unknown[]) : [v]).flatMap((v) => [
      ...varint((i + 1) * 8 + wire(kind)),
      ...value(kind, v),
    ]);
  });
}

/** Encodes what the broker says. */
export const say = (frame: Deep<ServerFrame>): Uint8Array =>
  Uint8Array.from(message(told[0]!, frame as Fields));

/** Decodes what the client says. */
export function hear(bytes: Uint8Array): ClientFrame {
  let at = 0;
  const number = () => {
    let v = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      v |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(v);
    }
  };
  const one = (kind: number): unknown => {
    if (kind === FIXED64 || kind === DOUBLE) {
      const view = new DataView(bytes.buffer, bytes.byteOffset + at);
      at += 8;
      return kind === DOUBLE ? view.getFloat64(0, true) : Number(view.getBigUint64(0, true));
    }
    const n = number();
    if (kind < STRING) return kind === BOOL ? n > 0 : n;
    at += n;
    if (kind === BYTES) return bytes.slice(at - n, at);
    if (kind === STRING) return new TextDecoder().decode(bytes.subarray(at - n, at));
    at -= n;
    return all(kind - MESSAGE, at + n);
  };
  const all = (place: number, end: number): Fields => {
    const fields = asked[place]!;
    const out: Fields = {};
    for (const f of fields) {
      if (!f.name || f.mark === OPTIONAL || place === 0) continue;
      if (f.mark === REPEATED) out[f.name] = [];
      else if (f.kind < MESSAGE) out[f.name] = [0, false, 0, 0, "", new Uint8Array()][f.kind];
    }
    while (at < end) {
      const field = fields[(number() >> 3) - 1]!;
      const v = one(field.kind);
      if (field.mark === REPEATED) (out[field.name] as unknown[]).push(v);
      else out[field.name] = v;
    }
    return out;
  };
  return all(0, bytes.length) as ClientFrame;
}

/** Everything in it may be left out. */
export type Deep<T> = T extends Uint8Array
  ? T
  : T extends readonly (infer U)[]
    ? readonly Deep<U>[]
    : T extends object
      ? { [K in keyof T]?: Deep<T[K]> | undefined }
      : T;
