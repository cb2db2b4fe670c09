import { write } from "./position.js";
import { ascii } from "./wire/codec.js";
const utf8 = new TextDecoder();
/** A message as it came, with its place: a string, or what makes one. */
export class Received {
    #wire;
    #place;
    constructor(wire, place) {
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
    get position() {
        return (this.#place = write(this.#place));
    }
    get time() {
        return new Date(this.#wire.time / 1000);
    }
    get expires() {
        const at = this.#wire.expiresAt;
        return at ? new Date(at / 1000) : undefined;
    }
    get headers() {
        return Object.fromEntries(this.#wire.headers.map((h) => [h.name, h.value]));
    }
    get data() {
        const type = this.contentType;
        if (/[/+]json\b/.test(type)) {
            try {
                return this.json();
            }
            catch {
                return this.text(); // a publisher's mistake, which is no reason to end the subscription
            }
        }
        // curl -d says urlencoded when it means text.
        return /^text\/|urlencoded/.test(type) ? this.text() : this.bytes;
    }
    text() {
        return ascii(this.bytes, 0, this.bytes.length) ?? utf8.decode(this.bytes);
    }
    json() {
        return JSON.parse(this.text());
    }
}
