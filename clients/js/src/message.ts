import { type Place, write } from "./position.js";
import type { Message } from "./types.js";
import { ascii } from "./wire/codec.js";
import type { WireMessage } from "./wire/frames.js";

const utf8 = new TextDecoder();

/** A message as it came, with its place: a string, or what makes one. */
export class Received implements Message {
  declare readonly topic: string;
  declare readonly id: string;
  declare readonly publisher: string;
  declare readonly key: string;
  declare readonly contentType: string;
  declare readonly bytes: Uint8Array;
  declare readonly ephemeral: boolean;
  #wire: WireMessage;
  #place: Place | string;

  constructor(wire: WireMessage, place: Place | string) {
    this.topic = wire.topic;
    this.id = wire.id;
    this.publisher = wire.publisher;
    this.key = wire.key;
    this.contentType = wire.contentType;
    this.bytes = wire.payload;
    this.ephemeral = wire.ephemeral;
    this.#wire = wire;
    this.#place = place;
  }

  get position(): string {
    return (this.#place = write(this.#place));
  }

  get time(): Date {
    return new Date(this.#wire.time / 1000);
  }

  get expires(): Date | undefined {
    const at = this.#wire.expiresAt;
    return at ? new Date(at / 1000) : undefined;
  }

  get headers(): Record<string, string> {
    return Object.fromEntries(this.#wire.headers.map((h) => [h.name, h.value]));
  }

  get data(): unknown {
    const type = this.contentType;
    if (/[/+]json\b/.test(type)) {
      try {
        return this.json();
      } catch {
        return this.text(); // a publisher's mistake, which is no reason to end the subscription
      }
    }
    // curl -d says urlencoded when it means text.
    return /^text\/|urlencoded/.test(type) ? this.text() : this.bytes;
  }

  text(): string {
    return ascii(this.bytes, 0, this.bytes.length) ?? utf8.decode(this.bytes);
  }

  json<T>(): T {
    return JSON.parse(this.text());
  }
}
