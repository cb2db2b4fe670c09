import { closed, refusal, TidewireError } from "./errors.js";
import { deferred } from "./events.js";
import { Member } from "./member.js";
import { Received } from "./message.js";
class Delivery extends Received {
    settled = false;
    constructor(wire, place, generation, attempt, say) {
        super(wire, place);
        this.place = place;
        this.generation = generation;
        this.attempt = attempt;
        this.say = say;
    }
    ack() {
        return this.say(this, "ack");
    }
    nack(options) {
        return this.say(this, "nack", { delayMs: options?.delay });
    }
    extend(byMs) {
        return this.say(this, "extend", { byMs });
    }
    reject(reason) {
        return this.say(this, "reject", { reason });
    }
}
/**
 * This client's membership in a consumer. Its messages wait in a queue for a free
 * worker. `#live` has those that are not known to be settled, so that one which the
 * broker delivers again over another connection is not worked on twice.
 *
 * What was said of messages and is not answered when the connection is lost is sent
 * again over the next one: an ack and a reject say what holds for ever, and twice is
 * once. A nack is not: by then it would be about another attempt.
 */
export class Consumer extends Member {
    #options;
    #worker;
    #queue = [];
    #running = 0;
    #live = new Map();
    /** By the number of its frame. */
    #said = new Map();
    #ref = 0;
    #draining = false;
    #keeper;
    #ackWait = 0;
    constructor(link, name, filter, worker, options) {
        super(link, `the consumer ${name}`, options.signal);
        this.name = name;
        this.#worker = worker;
        const { concurrency = 1, window = concurrency } = options;
        this.#options = { ...options, concurrency, window, filter, consumer: name };
        link.begin(this);
    }
    ask() {
        return this.#options;
    }
    subscribed({ ackWaitMs }) {
        this.#ackWait = ackWaitMs || 30_000;
        this.#keep();
        this.pause.failures = 0;
        this.confirmed("live");
        for (const ref of this.#said.keys())
            this.#send(ref);
    }
    acked({ ref, error, refused }) {
        this.#answered(ref, error, refused[0]?.code);
    }
    error(f) {
        if (f.ref)
            this.#answered(f.ref, f);
        else
            super.error(f);
    }
    lost() {
        super.lost();
        for (const [ref, s] of this.#said) {
            s.again = true;
            this.#send(ref);
        }
    }
    deliver({ term, partition, generation, records, attempts }) {
        records.forEach((record, i) => {
            const d = new Delivery(record, { term, partition, offset: record.offset }, generation, attempts[i] ?? 1, this.#say);
            if (this.#live.get(d.position)?.generation === generation)
                return;
            this.#live.set(d.position, d);
            this.#queue.push(d);
        });
        if (!this.#keeper)
            this.#keep();
        this.#work();
    }
    /** Keeps what waits or is worked on from being delivered again. */
    #keep() {
        clearTimeout(this.#keeper);
        this.#keeper = undefined;
        if (!this.#live.size || this.#options.extend === false)
            return;
        this.#keeper = setTimeout(() => {
            for (const d of this.#live.values())
                if (!d.settled)
                    d.extend(this.#ackWait);
            // Which worker has called close cannot be told; one that waits for it waits for itself.
            if (this.#draining && this.#running)
                this.link.warn(`${this.title} waits for workers to end`);
            this.#keep();
        }, this.#ackWait / 3);
    }
    #work() {
        while (this.#running < this.#options.concurrency && this.#queue.length && !this.#draining) {
            this.#running++;
            this.#run(this.#queue.shift());
        }
        this.#check();
    }
    async #run(d) {
        let verdict = "ack";
        try {
            await this.#worker(d);
        }
        catch (error) {
            verdict = "nack";
            this.link.warn(`a worker of ${this.title} failed:`, d, error);
        }
        this.#running--;
        if (!d.settled && this.state !== "ended")
            d[verdict]().catch((error) => this.emit("unsettled", { message: d, error }));
        this.#work();
    }
    /** Queues what is said of a delivery. */
    #say = (d, kind, more) => {
        const done = deferred();
        if (d.settled || this.state === "ended") {
            done.reject(d.settled ? new TidewireError("settled", "the message is settled") : closed(this.title));
            return done.promise;
        }
        if (kind !== "extend")
            d.settled = true;
        if (kind === "nack")
            this.#drop(d); // it may come again before the answer
        const { term, partition, offset } = d.place;
        const ref = (this.#ref = (this.#ref + 1) >>> 0 || 1); // 32 bits on the wire
        const frame = {
            ref,
            generation: d.generation,
            term,
            ranges: [{ partition, from: offset }],
            confirm: true,
            ...more,
        };
        this.#said.set(ref, { ...done, d, kind, frame });
        this.#send(ref);
        return done.promise;
    };
    /** Forgets a delivery, unless there is a later one of that message. */
    #drop(d) {
        if (this.#live.get(d.position) === d)
            this.#live.delete(d.position);
    }
    /** Tells the broker what was said; without a connection, over the next one, if it holds by then. */
    #send(ref) {
        const s = this.#said.get(ref);
        if (!s)
            return;
        if (this.state !== "live") {
            if (/^nack|ext/.test(s.kind))
                this.#answered(ref);
            return;
        }
        try {
            this.link.send({ [s.kind]: { ...s.frame, sub: this.sub } });
        }
        catch (error) {
            // A delay that is none, say.
            this.#said.delete(ref);
            s.reject(error);
            this.#check();
        }
    }
    /** Takes the broker's answer: that it failed, or the code of a message that it did not settle. */
    #answered(ref, error, code) {
        const s = this.#said.get(ref);
        if (error?.retryable)
            return this.link.later(this.pause.next(error.retryAfterMs), () => this.#send(ref));
        this.#said.delete(ref);
        if (s && s.kind !== "extend")
            this.#drop(s.d);
        if (error)
            s?.reject(refusal(error));
        // What was said twice is settled, as far as the second time goes.
        else if (code && !(s?.again && code === "not_pending"))
            s?.reject(new TidewireError(code, `the broker did not take it`));
        else
            s?.resolve();
        this.#check();
    }
    /** Ends a consumer that was closed, when nothing is left to be done. */
    #check() {
        if (this.#draining && !this.#running && !this.#said.size)
            this.end();
    }
    end(error) {
        super.end(error);
        clearTimeout(this.#keeper);
        this.#queue = [];
        for (const s of this.#said.values())
            s.reject(error ?? closed(this.title));
        this.#said.clear();
    }
    close() {
        this.#draining = true;
        this.#check();
        return this.done;
    }
}
