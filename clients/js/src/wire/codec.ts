import type { ClientFrame, ServerFrame } from "./frames.js";
import { client, server } from "./tables.js";

/** A message by its names; which names, the tables tell. */
type Fields = Record<string, unknown>;

/** A field as the tables have it. */
interface Field {
  name: string;
  /** A scalar, or from `MESSAGE` on the place of a message in the tables. */
  kind: number;
  /** How often it occurs. */
  mark: string;
  /** The last text that was decoded, if it was short and of ASCII alone: the next one is often the same. */
  last: string;
}

const NUMBER = 0;
const BOOL = 1;
const STRING = 2;
const BYTES = 3;
const FIXED64 = 4;
const DOUBLE = 5;
const MESSAGE = 6;

const OPTIONAL = "?";
const REPEATED = "*";
const ONEOF = "|";

/** proto/client-codec.mjs says how a table is written. */
function parse(table: string): Field[][] {
  return table
    .split(";")
    .map((row) =>
      [...row.matchAll(/([a-z]*)(\d*)(.)/gi)].map(
        ([, name, kind, mark]) => ({ name, kind: +kind!, mark, last: "" }) as Field,
      ),
    );
}

const sent = /* @__PURE__ */ parse(client);

/**
 * Encodes a frame; the last of the messages is `ClientFrame`. What is undefined is
 * left out, as is what has the default of its kind, unless the field is optional.
 */
export function encode(frame: ClientFrame): Uint8Array<ArrayBuffer> {
  // Written from the back to the front: so the length of a message is known when its turn comes.
  let bytes = new Uint8Array(256);
  let at = bytes.length;

  const put = (part: ArrayLike<number>) => {
    if (part.length > at) {
      const filled = bytes.subarray(at);
      const larger = new Uint8Array(bytes.length * 2 + part.length);
      at = larger.length - filled.length;
      larger.set(filled, at);
      bytes = larger;
    }
    at -= part.length;
    bytes.set(part, at);
  };

  const putVarint = (value: number) => {
    if (!Number.isSafeInteger(value) || value < 0)
      throw new RangeError(`${value} is no whole number from 0 to 2^53-1`);
    const part = [];
    for (; value > 127; value = Math.floor(value / 128)) part.push((value % 128) + 128);
    part.push(value);
    put(part);
  };

  const putField = ({ kind }: Field, number: number, value: unknown) => {
    let wire = 2;
    if (kind < STRING) {
      putVarint(Number(value));
      wire = 0;
    } else if (kind === FIXED64 || kind === DOUBLE) {
      const part = new DataView(new ArrayBuffer(8));
      if (kind === DOUBLE) part.setFloat64(0, value as number, true);
      else part.setBigUint64(0, BigInt(value as number), true);
      put(new Uint8Array(part.buffer));
      wire = 1;
    } else {
      const below = bytes.length - at;
      if (kind === STRING) put(new TextEncoder().encode(value as string));
      else if (kind === BYTES) put(value as Uint8Array);
      else putMessage(sent[kind - MESSAGE]!, value as Fields);
      putVarint(bytes.length - at - below);
    }
    putVarint(number * 8 + wire);
  };

  const putMessage = (fields: Field[], message: Fields) => {
    for (let i = fields.length; i--; ) {
      const field = fields[i]!;
      const value = message[field.name];
      if (field.mark === REPEATED) {
        for (let j = (value as unknown[] | undefined)?.length ?? 0; j--; )
          putField(field, i + 1, (value as unknown[])[j]);
      } else if (
        value != null &&
        (value || field.mark === OPTIONAL) &&
        (field.kind !== BYTES || (value as Uint8Array).length)
      ) {
        putField(field, i + 1, value);
      }
    }
  };

  putMessage(sent.at(-1)!, frame as Fields);
  return bytes.subarray(at);
}

const none = /* @__PURE__ */ new Uint8Array(0);
const received = /* @__PURE__ */ parse(server).map((fields) => ({
  fields,
  /** A message of which nothing is on the wire. It is copied, which is faster than giving each field its default. */
  blank: Object.fromEntries(
    fields.flatMap(({ name, kind, mark }) =>
      !name || (kind >= MESSAGE && mark !== REPEATED)
        ? []
        : [[name, mark === REPEATED ? Object.freeze([]) : [0, false, "", none, 0][kind]]],
    ),
  ) as Fields,
}));

const utf8 = /* @__PURE__ */ new TextDecoder("utf-8", { ignoreBOM: true });

// The frame in hand. Decoding calls nobody, so there is only one at a time.
let bytes = none;
let view: DataView;
let at = 0;
let end = 0;

function malformed(): never {
  throw new Error("The frame is malformed.");
}

function varint(): number {
  let value = 0;
  for (let unit = 1; unit < 2 ** 64; unit *= 128) {
    if (at >= end) malformed();
    const byte = bytes[at++]!;
    value += (byte & 127) * unit;
    if (byte < 128) return value;
  }
  malformed();
}

function text(field: Field, stop: number): string {
  const size = stop - at;
  const { last } = field;
  if (size > 64) return utf8.decode(bytes.subarray(at, stop));
  let i = 0;
  if (last.length === size) {
    while (i < size && last.charCodeAt(i) === bytes[at + i]) i++;
    if (i === size) return last;
  }
  const codes = [];
  for (i = at; i < stop; i++) {
    const code = bytes[i]!;
    if (code > 127) return utf8.decode(bytes.subarray(at, stop));
    codes.push(code);
  }
  return (field.last = String.fromCharCode.apply(null, codes));
}

/** Decodes the value that ends before `stop`. */
function value(field: Field, stop: number): unknown {
  const { kind } = field;
  if (kind === STRING) return text(field, stop);
  if (kind === BYTES) return bytes.subarray(at, stop);
  if (kind === FIXED64) return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
  if (kind >= MESSAGE) return message(kind - MESSAGE, stop);
  const number = varint();
  return kind === BOOL ? number > 0 : number;
}

function message(place: number, until: number): Fields {
  const { fields, blank } = received[place]!;
  const above = end;
  let out = { ...blank };
  end = until;
  while (at < end) {
    const tag = varint();
    const wire = tag % 8;
    if (tag < 8 || tag > 0xffffffff || wire > 5) malformed();
    const field = fields[(tag >>> 3) - 1];
    let stop = end;
    if (wire === 2) stop = varint() + at;
    else if (wire) stop = at + (wire === 1 ? 8 : wire === 5 ? 4 : malformed());
    if (stop > end) malformed();
    if (!field?.name) {
      if (wire) at = stop;
      else varint();
      continue;
    }
    const { name, kind, mark } = field;
    const list = mark === REPEATED;
    const packed = list && kind === NUMBER && wire === 2;
    if (!packed && wire !== (kind < STRING ? 0 : kind === FIXED64 ? 1 : 2)) malformed();
    if (mark === ONEOF) out = {};
    if (list) {
      let values = out[name] as unknown[];
      if (Object.isFrozen(values)) out[name] = values = [];
      if (packed) {
        const within = end;
        end = stop;
        while (at < end) values.push(varint());
        end = within;
      } else values.push(value(field, stop));
    } else out[name] = value(field, stop);
    if (wire) at = stop;
  }
  end = above;
  return out;
}

/**
 * Decodes a frame. Bytes in it are views of `frame`, and lists that are empty cannot
 * be changed. What is unknown is skipped: an unknown frame gives `{}`. Throws if the
 * frame is malformed; text that is not UTF-8 is not: it has the replacement character.
 */
export function decode(frame: Uint8Array): ServerFrame {
  bytes = frame as Uint8Array<ArrayBuffer>;
  view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  at = 0;
  end = frame.length;
  return message(received.length - 1, end);
}
