import { Backoff } from "./backoff.js";
import { refusal, TidewireError } from "./errors.js";
import { deferred, onAbort } from "./events.js";
import { write } from "./position.js";
import { encode } from "./wire/codec.js";
const utf8 = new TextEncoder();
/** Pages that did not come by https have no crypto.randomUUID. */
const randomId = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
/**
 * Keeps published messages until they are answered, in the order of publishing.
 *
 * All that is unanswered is one row: what is in flight first, then what was not sent
 * yet. After a lost connection or a retryable refusal the row is sent again from its
 * beginning, so nothing new overtakes anything old. The naive way, to send again each
 * message that was refused, reorders: while it is on its way again, later ones are
 * accepted.
 */
export class Outbox {
    #row = [];
    /** How many at the front of the row were sent, over this connection and since the last refusal. */
    #next = 0;
    #bytes = 0;
    #ref = 0;
    #resume = false;
    /** How long the row rests at least since something was refused, in milliseconds; 0 if nothing was. */
    #after = 0;
    #pause = new Backoff();
    #options;
    #loaded;
    #link;
    constructor(options, link) {
        this.#options = options;
        this.#link = link;
        this.#loaded = !options.store;
        this.#load();
    }
    /** Puts what an earlier page left behind in front. */
    async #load() {
        const { store } = this.#options;
        if (!store)
            return;
        const refused = (error, entry) => this.#link.emit("refused", { ...entry, error }) ||
            this.#link.warn("the outbox of an earlier page:", entry, error);
        try {
            for (const entry of (await store.load()).reverse()) {
                try {
                    const item = this.#item(entry, true);
                    item.promise.catch((error) => this.#loaded && refused(error, entry));
                    this.#row.unshift(item);
                }
                catch (error) {
                    refused(error, entry);
                    this.#store("remove", entry);
                }
            }
        }
        catch (error) {
            refused(error);
        }
        this.#loaded = true;
        this.#link.pump();
    }
    /** How many messages are not answered. */
    get count() {
        return this.#row.length;
    }
    /** Reports whether an answer is due. */
    get waiting() {
        return this.#row.some((item) => item.ref);
    }
    /** Makes an item. What cannot be written is refused here, not over each connection. */
    #item(entry, sent) {
        try {
            const messages = [{ ...wire(entry), payload: entry.payload.subarray(0, 0) }];
            encode({ publish: { messages, repeatAgeMs: entry.first } });
        }
        catch (error) {
            throw new TidewireError("invalid_message", error.message);
        }
        const size = entry.payload.length + 3 * JSON.stringify({ ...entry, payload: 0 }).length;
        this.#bytes += size;
        return { ...deferred(), entry, size, sent, ref: 0 };
    }
    /** Takes a message. The promise has its outcome. */
    add(topic, data, { signal, expires, ...options }) {
        const { messages = 1000, bytes = 8 << 20 } = this.#options;
        const count = this.#row.length;
        if (count && (count >= messages || this.#bytes >= bytes)) {
            const hint = `${count} messages wait for the broker: await some of them first`;
            throw new TidewireError("outbox_full", hint, true);
        }
        signal?.throwIfAborted();
        const [payload, contentType] = encodeData(data);
        const first = Date.now();
        const entry = {
            ...options,
            id: options.id ?? randomId(),
            contentType: options.contentType ?? contentType,
            topic,
            payload,
            expires: typeof expires === "number" ? first + expires : expires && +expires,
            first,
        };
        const item = this.#item(entry, false);
        this.#row.push(item);
        if (!entry.ephemeral)
            this.#store("add", entry);
        onAbort(signal, item.promise, () => {
            item.reject(signal?.reason);
            if (!item.ref)
                this.#settle(item);
        });
        this.#link.pump();
        return item.promise;
    }
    #store(what, entry) {
        try {
            this.#options.store?.[what](entry);
        }
        catch (error) {
            this.#link.warn("the store of the outbox failed:", error);
        }
    }
    /** Takes a message out of the row. */
    #settle(item) {
        const at = this.#row.indexOf(item);
        if (at < 0)
            return;
        this.#row.splice(at, 1);
        if (at < this.#next)
            this.#next--;
        this.#bytes -= item.size;
        this.#store("remove", item.entry);
    }
    /** Returns the next frame to send; undefined if there is none for now. Each message has a frame of its own. */
    next(limits) {
        const item = this.#row[this.#next];
        if (!item || this.#after || !this.#loaded || this.#next >= limits.inFlight)
            return;
        const { entry, sent, size } = item;
        if (size > limits.frameBytes) {
            // It would cost the connection.
            item.reject(new TidewireError("payload_too_large", `the broker takes ${limits.frameBytes} bytes at most`));
            this.#settle(item);
            return this.next(limits);
        }
        const now = Date.now();
        const repeatAgeMs = sent ? Math.max(now - entry.first, 1) : 0;
        if (!sent)
            entry.first = now;
        item.sent = true;
        item.ref = this.#ref = (this.#ref + 1) >>> 0 || 1; // 32 bits on the wire
        this.#next++;
        const resume = this.#resume;
        this.#resume = false;
        return { ref: item.ref, messages: [wire(entry)], resume, repeatAgeMs };
    }
    /** Takes answers. `term` is that of the positions, where a result has none of its own. */
    answered(results, term = "") {
        for (const { ref, error, duplicate = false, term: own, partition = 0, offset } of results) {
            const item = this.#row.find((item) => item.ref === ref);
            if (!item)
                continue;
            item.ref = 0;
            if (error?.retryable) {
                this.#after = Math.max(this.#after, error.retryAfterMs, 1);
                continue;
            }
            const { topic, id } = item.entry;
            const position = offset ? write({ term: own || term, partition, offset }) : "";
            if (error)
                item.reject(refusal(error));
            else
                item.resolve({ topic, id, position, duplicate, stored: !!position });
            this.#settle(item);
            if (!error)
                this.#pause.failures = 0;
        }
        if (!this.#after || this.waiting)
            return;
        this.#link.later(this.#pause.next(this.#after), () => {
            this.lost(true);
            this.#link.pump();
        });
    }
    /** Begins the row anew: on another connection, or on the same, to `resume`. What was in flight may have been stored. */
    lost(resume = false) {
        this.#resume = resume;
        this.#next = this.#after = 0;
        for (const item of this.#row)
            item.ref = 0;
    }
    /** Gives up on everything; what a store has stays there. */
    end(why) {
        this.#loaded = false;
        for (const { sent, reject } of this.#row.splice(0)) {
            reject(sent
                ? new TidewireError("outcome_unknown", `the message may or may not be stored: ${why.message}`)
                : why);
        }
    }
}
function wire(entry) {
    const headers = Object.entries(entry.headers ?? {}).map(([name, value]) => ({ name, value }));
    return { ...entry, headers, expiresAt: (entry.expires ?? 0) * 1000 };
}
function encodeData(data) {
    if (data instanceof ArrayBuffer || data instanceof Uint8Array)
        return [new Uint8Array(data).slice()];
    const text = typeof data === "string" ? data : JSON.stringify(data);
    if (text === undefined)
        throw new TypeError("there is no data to publish");
    return [utf8.encode(text), text === data ? "text/plain" : "application/json"];
}
