import { Backoff } from "./backoff.js";
import { refusal, TidewireError } from "./errors.js";
import { deferred } from "./events.js";
import { write } from "./position.js";
const utf8 = new TextEncoder();
/** Pages that did not come by https have no crypto.randomUUID. */
const randomId = () => [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(36)).join("");
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
    #held = false;
    #resume = false;
    #after = 0;
    #pause = new Backoff();
    #options;
    #loaded;
    #pump;
    #later;
    /**
     * @param pump Called when there may be something to send.
     * @param refused Told of messages of an earlier page that the broker refuses.
     */
    constructor(options, pump, later, refused) {
        this.#options = options;
        this.#pump = pump;
        this.#later = later;
        this.#loaded = !options.store;
        if (options.store)
            this.#load(refused);
    }
    async #load(refused) {
        try {
            for (const entry of (await this.#options.store?.load())?.reverse() ?? []) {
                const item = this.#item(entry);
                item.sent = true;
                item.answer.promise.catch((error) => this.#loaded && refused(entry, error));
                this.#row.unshift(item);
            }
        }
        catch (error) {
            refused(undefined, error);
        }
        this.#loaded = true;
        this.#pump();
    }
    /** How many messages are not answered. */
    get count() {
        return this.#row.length;
    }
    /** Reports whether an answer is due. */
    get waiting() {
        return this.#row.some((item) => item.ref);
    }
    #item(entry) {
        const size = entry.payload.length + 3 * JSON.stringify({ ...entry, payload: 0 }).length;
        this.#bytes += size;
        return { entry, size, answer: deferred(), sent: false, ref: 0 };
    }
    /** Takes a message. The promise has its outcome. */
    add(topic, data, { signal, expires, ...options }) {
        const { messages = 1000, bytes = 8 << 20, store } = this.#options;
        const count = this.#row.length;
        if (count && (count >= messages || this.#bytes >= bytes)) {
            const hint = `${count} messages wait for the broker: await some of them first, or raise the bounds of outbox`;
            throw new TidewireError("outbox_full", hint, true);
        }
        signal?.throwIfAborted();
        const [payload, contentType] = encodeData(data);
        const first = Date.now();
        const item = this.#item({
            id: randomId(),
            contentType,
            ...options,
            topic,
            payload,
            expires: typeof expires === "number" ? first + expires : expires && +expires,
            first,
        });
        this.#row.push(item);
        if (!item.entry.ephemeral)
            store?.add(item.entry);
        signal?.addEventListener("abort", () => {
            item.answer.reject(signal.reason);
            if (!item.ref)
                this.#settle(item);
        });
        this.#pump();
        return item.answer.promise;
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
        this.#options.store?.remove(item.entry);
    }
    /** Returns the next frame to send; undefined if there is none for now. Each message has a frame of its own. */
    next(limits) {
        const item = this.#row[this.#next];
        if (!item || this.#held || !this.#loaded || this.#next >= limits.inFlight)
            return;
        const { entry, sent, size } = item;
        if (entry.payload.length > limits.payloadBytes || size > limits.frameBytes) {
            // It would cost the connection.
            item.answer.reject(new TidewireError("payload_too_large", `the payload has more than ${limits.payloadBytes} bytes`));
            this.#settle(item);
            return this.next(limits);
        }
        const now = Date.now();
        const repeatAgeMs = sent ? now - entry.first || 1 : 0;
        if (!sent)
            entry.first = now;
        item.sent = true;
        item.ref = ++this.#ref;
        this.#next++;
        const resume = this.#resume;
        this.#resume = false;
        const headers = Object.entries(entry.headers ?? {}).map(([name, value]) => ({ name, value }));
        const messages = [{ ...entry, headers, expiresAt: (entry.expires ?? 0) * 1000 }];
        return { ref: item.ref, messages, resume, repeatAgeMs };
    }
    /** Takes answers. `term` is that of the positions, where a result has none of its own. */
    answered(results, term = "") {
        for (const { ref, error, duplicate = false, term: own, partition = 0, offset } of results) {
            const item = this.#row.find((item) => item.ref === ref);
            if (!item)
                continue;
            item.ref = 0;
            if (error?.retryable) {
                this.#held = true;
                this.#after = Math.max(this.#after, error.retryAfterMs);
                continue;
            }
            const { topic, id } = item.entry;
            const position = offset ? write({ term: own || term, partition, offset }) : "";
            if (error)
                item.answer.reject(refusal(error));
            else
                item.answer.resolve({ topic, id, position, duplicate, stored: !!position });
            this.#settle(item);
            if (!error)
                this.#pause.failures = 0;
        }
        if (!this.#held || this.waiting)
            return;
        this.#later(Math.max(this.#pause.next(), this.#after), () => {
            this.#begin();
            this.#resume = true;
            this.#pump();
        });
    }
    #begin() {
        this.#held = this.#resume = false;
        this.#next = this.#after = 0;
    }
    /** Begins the row anew on another connection. What was in flight may have been stored. */
    lost() {
        this.#begin();
        for (const item of this.#row)
            item.ref = 0;
    }
    /** Gives up on everything; what a store has stays there. */
    end(why) {
        this.#loaded = false;
        for (const { sent, answer } of this.#row.splice(0)) {
            answer.reject(sent
                ? new TidewireError("outcome_unknown", `the message may or may not be stored: ${why.message}`)
                : why);
        }
    }
}
function encodeData(data) {
    if (data instanceof ArrayBuffer || data instanceof Uint8Array)
        return [new Uint8Array(data).slice()];
    const text = typeof data === "string" ? data : JSON.stringify(data);
    if (text === undefined)
        throw new TypeError("data is undefined, or a function: there is nothing to publish");
    return [utf8.encode(text), text === data ? "text/plain" : "application/json"];
}
