// The wire contract as protobuf-es reads it, and random frames of it. The descriptors
// come from the .proto file and not from our tables, so that a mistake in the tables
// is seen.
import { execFileSync } from "node:child_process";
import {
  create,
  createFileRegistry,
  type DescField,
  type DescMessage,
  fromBinary,
  type Message,
  type MessageInitShape,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

const script = new URL("../../../../scripts/gen", import.meta.url).pathname;
const image = execFileSync(script, ["--image"], { maxBuffer: 1 << 24, stdio: ["ignore", "pipe", "inherit"] });
const files = fromBinary(FileDescriptorSetSchema, image);

/** What the client leaves out, as proto/client-codec.mjs has it: here nobody knows these fields, either. */
const left = new Set(
  `ServerFrame.unsubscribed Connect.ref Connect.capabilities Welcome.ref Welcome.session Welcome.server
  Welcome.subject Limits.payload_bytes Limits.publish_messages Limits.subscriptions Subscribed.resumed
  Subscribed.behind Subscribed.generation Subscribed.created OffsetRange.through Ack.up_to Acked.term
  Acked.settled RefusedRange.partition RefusedRange.from RefusedRange.through Gap.term GoAway.reason
  Refresh.ref Refreshed.ref Message.origin`.split(/\s+/),
);
for (const message of files.file.flatMap((file) => file.messageType)) {
  message.field = message.field.filter((field) => !left.delete(`${message.name}.${field.name}`));
}
if (left.size > 0) throw new Error(`the contract does not have ${[...left]}`);
const registry = createFileRegistry(files);

export const ClientFrame = registry.getMessage("tidewire.v1.ClientFrame")!;
export const ServerFrame = registry.getMessage("tidewire.v1.ServerFrame")!;

/** A frame as our codec has it. */
export type Value = Record<string, unknown>;

/** What only a broker says of a message. */
const brokers = new Set([
  "tidewire.v1.Message.publisher",
  "tidewire.v1.Message.offset",
  "tidewire.v1.Message.time",
]);

const id = (field: DescField) => `${field.parent.typeName}.${field.name}`;

/** Numbers from 0 up to and without 1, the same for the same seed (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Makes random frames, those at the edges more often than chance would. */
export class Frames {
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = random(seed);
  }

  below(n: number): number {
    return Math.floor(this.#next() * n);
  }

  pick<T>(of: readonly T[]): T {
    return of[this.below(of.length)]!;
  }

  bytes(most = 200): Uint8Array {
    return Uint8Array.from({ length: this.below(this.pick([1, 4, most])) }, () => this.below(256));
  }

  #text(): string {
    const characters = this.pick([
      "a",
      "abcdefghij0123456789.",
      "aé",
      "€\u{1f600}z",
      "\0\x7f\u0080\ufeff\uffff",
    ]);
    const length = this.pick([0, 1, 2, 12, 20, 36, 62, 63, 64, 65, 300]);
    return Array.from({ length }, () => this.pick([...characters])).join("");
  }

  #number(largest: number): number {
    const edge = 2 ** this.below(Math.log2(largest + 1) + 1);
    return Math.min(
      largest,
      this.pick([0, 1, edge - 1, edge, this.below(300), Math.floor(this.#next() * largest)]),
    );
  }

  #scalar(type: ScalarType): unknown {
    switch (type) {
      case ScalarType.UINT32:
        return this.#number(2 ** 32 - 1);
      case ScalarType.UINT64:
      case ScalarType.FIXED64:
        return this.#number(Number.MAX_SAFE_INTEGER);
      case ScalarType.BOOL:
        return this.pick([true, false]);
      case ScalarType.DOUBLE:
        return this.pick([0, -0, 1, 2.5, -1e308, Number.MIN_VALUE, Infinity, NaN, this.#next()]);
      case ScalarType.STRING:
        return this.#text();
      case ScalarType.BYTES:
        return this.bytes();
      default:
        throw new Error(`no random value of type ${type}`);
    }
  }

  #one(field: DescField): unknown {
    return field.message ? this.message(field.message) : this.#scalar(field.scalar!);
  }

  /** A message; what is absent is left out. */
  message(desc: DescMessage): Value {
    const value: Value = {};
    for (const member of desc.members) {
      const field = member.kind === "oneof" ? this.pick(member.fields) : member;
      if (this.below(3) === 0 && member.kind !== "oneof") continue;
      if (field.fieldKind === "list") {
        value[field.localName] = Array.from({ length: this.below(this.pick([1, 3, 12])) }, () =>
          this.#one(field),
        );
      } else value[field.localName] = this.#one(field);
    }
    return value;
  }
}

/** The same message for protobuf-es; `more` may add to each message. */
export function forProtobuf(
  desc: DescMessage,
  value: Value,
  more: (message: Message) => void = () => {},
): Message {
  const init: Value = {};
  const one = (field: DescField, it: unknown) => {
    if (field.message) return forProtobuf(field.message, it as Value, more);
    return field.scalar === ScalarType.UINT64 || field.scalar === ScalarType.FIXED64
      ? BigInt(it as number)
      : it;
  };
  for (const field of desc.fields) {
    const it = value[field.localName];
    if (it === undefined) continue;
    const own =
      field.fieldKind === "list" ? (it as unknown[]).map((each) => one(field, each)) : one(field, it);
    if (field.oneof) init[field.oneof.localName] = { case: field.localName, value: own };
    else init[field.localName] = own;
  }
  const message = create(desc, init as MessageInitShape<DescMessage>);
  more(message);
  return message;
}

/** The bytes that protobuf-es writes for a frame. */
export function protobufBytes(
  desc: DescMessage,
  value: Value,
  more?: (message: Message) => void,
): Uint8Array {
  return toBinary(desc, forProtobuf(desc, value, more));
}

/** A message that protobuf-es read, as our codec gives it. */
export function fromProtobuf(desc: DescMessage, message: Message): Value {
  const read = message as unknown as Value;
  const one = (field: DescField, it: unknown): unknown => {
    if (field.message) return fromProtobuf(field.message, it as Message);
    return typeof it === "bigint" ? Number(it) : it;
  };
  const value: Value = {};
  for (const field of desc.fields) {
    if (field.oneof) {
      const set = read[field.oneof.localName] as { case?: string; value?: unknown };
      if (set.case === field.localName) value[field.localName] = one(field, set.value);
    } else if (field.fieldKind === "list") {
      value[field.localName] = (read[field.localName] as unknown[]).map((each) => one(field, each));
    } else if (read[field.localName] !== undefined) {
      value[field.localName] = one(field, read[field.localName]);
    }
  }
  return value;
}

/** Leaves out what clients do not say of a message, and what is not in the contract as the client has it. */
export function withoutBrokers(desc: DescMessage, value: Value): Value {
  const fields = desc.fields.filter((field) => field.localName in value && !brokers.has(id(field)));
  const one = (field: DescField, it: unknown) =>
    field.message ? withoutBrokers(field.message, it as Value) : it;
  return Object.fromEntries(
    fields.map((field) => {
      const it = value[field.localName];
      return [field.localName, Array.isArray(it) ? it.map((each) => one(field, each)) : one(field, it)];
    }),
  );
}
