import type { ClientFrame, ServerFrame } from "./frames.js";
import {
  BOOL,
  BYTES,
  client,
  DOUBLE,
  FIXED64,
  MESSAGE,
  ONEOF,
  OPTIONAL,
  REPEATED,
  STRING,
  server,
} from "./tables.js";

/** A message by the names that the tables tell. */
type Fields = Record<string, unknown>;

/** A field as the tables have it. */
interface Field {
  name: string;
  /** A scalar, or from `MESSAGE` on the place of a message in the tables. */
  kind: number;
  /** Wire type. */
  wire: number;
  /** How often it occurs. */
  mark: string;
  /** The last text that was decoded, if it was short and of ASCII alone: the next one is often the same. */
  last: string;
}

const none = /* @__PURE__ */ new Uint8Array(0);
const empty: readonly unknown[] = /* @__PURE__ */ Object.freeze([]);

/** Reads a table; proto/client-codec.mjs says how it is written. */
function parse(table: string) {
  return table.split(";").map((row) => {
    // A message of which nothing is on the wire. Decoding copies it, which is faster than to give each field its default.
    const blank: Fields = {};
    const fields = [...row.matchAll(/([a-z]*)(\d*)(.)/gi)].map(([, name, digits, mark]): Field => {
      const kind = +digits!;
      if (mark === REPEATED) blank[name!] = empty;
      else if (name && kind < MESSAGE) blank[name] = [0, false, 0, 0, "", none][kind];
      return { name: name!, kind, wire: Math.min(kind >> 1, 2), mark: mark!, last: "" };
    });
    return [fields, blank] as const;
  });
}

const utf8 = /* @__PURE__ */ new TextEncoder();
const sent = /* @__PURE__ */ parse(client);

/**
 * Encodes a frame. What is undefined is left out, as is what has the default of its
 * kind, unless the field is optional.
 */
export function encode(frame: ClientFrame): Uint8Array<ArrayBuffer> {
  // From the back to the front: so the length of a message is known when its turn comes.
  const parts: ArrayLike<number>[] = [];
  let size = 0;

  const put = (part: ArrayLike<number>) => {
    parts.push(part);
    size += part.length;
  };

  // What is behind the point is cut where a number becomes a byte, and so are the bits above the byte.
  const putVarint = (value: number) => {
    const part = [];
    for (; value >= 128; value /= 128) part.push((value % 128) + 128);
    part.push(value);
    put(part);
  };

  const putField = ({ kind, wire }: Field, number: number, value: unknown) => {
    const below = size;
    if (kind >= MESSAGE) putMessage(kind - MESSAGE, value as Fields);
    else if (kind === STRING) put(utf8.encode(value as string));
    else if (kind === BYTES) put(value as Uint8Array);
    else if (kind === DOUBLE) put(new Uint8Array(new Float64Array([value as number]).buffer));
    else if (!((value as number) >= 0 && (value as number) < 2 ** 53))
      throw new RangeError(`${value} is out of range`);
    else if (kind === FIXED64) put(Array.from({ length: 8 }, (_, i) => (value as number) / 256 ** i));
    else putVarint(+(value as number));
    if (wire > 1) putVarint(size - below);
    putVarint(number * 8 + wire);
  };

  const putMessage = (place: number, message: Fields) => {
    const [fields] = sent[place]!;
    for (let i = fields.length; i--; ) {
      const field = fields[i]!;
      const value = message[field.name] as ArrayLike<unknown> | undefined;
      if (field.mark === REPEATED) {
        for (let j = value?.length ?? 0; j--; ) putField(field, i + 1, value![j]);
      } else if (value != null && (value || field.mark === OPTIONAL) && value.length !== 0) {
        putField(field, i + 1, value);
      }
    }
  };

  putMessage(0, frame as Fields);
  const bytes = new Uint8Array(size);
  for (const part of parts) bytes.set(part, (size -= part.length));
  return bytes;
}

const received = /* @__PURE__ */ parse(server);
const fromUtf8 = /* @__PURE__ */ new TextDecoder("utf-8", { ignoreBOM: true });

// The frame in hand, and the end of the message in hand. Decoding calls nobody, so one of each is enough.
let bytes: Uint8Array = none;
let at = 0;
let end = 0;

function malformed(): never {
  throw new Error("malformed frame");
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

/** How many bytes a value has, of which a varint was read already; of unknown wire types that cannot be told. */
function extent(wire: number, number: number): number {
  if (wire === 2) return number;
  if (wire === 5) return 4;
  return [0, 8][wire] ?? NaN;
}

function text(field: Field, stop: number): string {
  const { last } = field;
  let i = at;
  while (i < stop && last.charCodeAt(i - at) === bytes[i]) i++;
  if (i === stop && last.length === stop - at) return last;
  const found = ascii(bytes, at, stop);
  return found === undefined ? fromUtf8.decode(bytes.subarray(at, stop)) : (field.last = found);
}

/** Decodes text that is short and of ASCII, several times as fast as a decoder would; gives nothing for other text. */
export function ascii(from: Uint8Array, at: number, stop: number): string | undefined {
  if (stop - at > 128) return;
  const codes = new Array<number>(stop - at); // one that grows costs half as much again
  for (let i = at; i < stop; i++) if ((codes[i - at] = from[i]!) > 127) return;
  return String.fromCharCode(...codes);
}

/** Decodes one value. `number` is its varint, or its length, and `stop` its end. */
function decodeValue(field: Field, wire: number, number: number, stop: number): unknown {
  const { kind } = field;
  if (wire !== field.wire) malformed();
  if (kind === STRING) return text(field, stop);
  if (kind === BYTES) return bytes.subarray(at, stop);
  if (kind >= MESSAGE) return decodeMessage(kind - MESSAGE, stop);
  if (kind === FIXED64) for (let i = stop; i-- > at; ) number = number * 256 + bytes[i]!;
  return kind === BOOL ? number > 0 : number;
}

/** Decodes one value of a list, or several numbers that are packed. */
function decodeValues(list: unknown[], field: Field, wire: number, number: number, stop: number): unknown[] {
  if (field.wire || wire !== 2) {
    list.push(decodeValue(field, wire, number, stop));
  } else {
    const until = end;
    for (end = stop; at < end; ) list.push(varint());
    end = until;
  }
  return list;
}

function decodeMessage(place: number, until: number): Fields {
  const [fields, blank] = received[place]!;
  const above = end;
  let out = { ...blank };
  for (end = until; at < end; ) {
    const tag = varint();
    const wire = tag % 8;
    const number = wire & 1 ? 0 : varint();
    const stop = at + extent(wire, number);
    if (tag < 8 || tag > 0xffffffff || !(stop <= end)) malformed();
    const field = fields[(tag >>> 3) - 1];
    if (field?.name) {
      const { name, mark } = field;
      if (mark === ONEOF) out = {};
      out[name] =
        mark === REPEATED
          ? decodeValues(out[name] === empty ? [] : (out[name] as unknown[]), field, wire, number, stop)
          : decodeValue(field, wire, number, stop);
    }
    at = stop;
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
  bytes = frame;
  at = 0;
  return decodeMessage(0, frame.length);
}
