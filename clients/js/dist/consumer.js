import { closed, refusal, TidewireError } from "./errors.js";
import { deferred } from "./events.js";
import { Member } from "./member.js";
import { Received } from "./message.js";
class Delivery extends Received {
    place;
    generation;
    attempt;
    say;
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
 * worker. `#live` has those that are not settled, so that one which the broker
 * delivers again over another connection is not worked on twice.
 *
 * What was said of messages and is not answered when the connection is lost is sent
 * again over the next one: an ack and a reject say what holds for ever, and twice is
 * once. A nack is not: by then it would be about another attempt.
 */
export class Consumer extends Member {
    name;
    #filter;
    #options;
    #worker;
    #queue = [];
    #running = 0;
    #live = new Map();
    /** By the number of its frame. */
    #said = new Map();
    #ref = 0;
    #draining = false;
    #ackWait = 0;
    #keeper;
    constructor(link, name, filter, worker, options) {
        super(link, `the consumer ${name}`, options.signal);
        this.name = name;
        this.#filter = filter;
        this.#worker = worker;
        this.#options = options;
        link.begin(this);
    }
    ask() {
        if (this.sub)
            return;
        const { concurrency, window = concurrency ?? 1 } = this.#options;
        return { ...this.#options, filter: this.#filter, consumer: this.name, window };
    }
    take({ deliver, subscribed, acked, gap, error }) {
        if (deliver)
            this.#deliver(deliver);
        else if (subscribed) {
            this.#ackWait = subscribed.ackWaitMs || 30_000;
            this.#keep();
            this.pause.failures = 0;
            this.confirmed("live");
            for (const ref of this.#said.keys())
                this.#send(ref);
        }
        else if (acked?.error)
            this.#untaken(acked.ref, acked.error);
        else if (acked)
            this.#settle(acked.ref, acked.refused[0]?.code);
        else if (gap)
            this.tellGap(gap);
        else if (error && /ack|ext|rej/.test(error.request))
            this.#untaken(error.ref, error);
        else if (error)
            this.refused(error);
    }
    lost() {
        super.lost();
        for (const [ref, s] of this.#said) {
            s.again = true;
            if (/^nack|ext/.test(s.kind))
                this.#settle(ref);
        }
    }
    #deliver({ term, partition, generation, records, attempts }) {
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
        clearInterval(this.#keeper);
        if (this.#options.extend ?? true)
            this.#keeper = setInterval(() => this.#extend(), this.#ackWait / 3);
    }
    #extend() {
        if (!this.#live.size) {
            clearInterval(this.#keeper);
            this.#keeper = undefined;
        }
        for (const d of this.#live.values())
            d.extend(this.#ackWait);
    }
    #work() {
        const { concurrency = 1 } = this.#options;
        while (this.#running < concurrency && this.#queue.length && !this.#draining) {
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
            this.link.warn(`a worker of ${this.title} failed at message ${d.id}, attempt ${d.attempt}:`, error);
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
            done.reject(d.settled ? new TidewireError("settled", "the message is settled already") : closed(this.title));
            return done.promise;
        }
        if (kind !== "extend") {
            d.settled = true;
            this.#live.delete(d.position);
        }
        const { term, partition, offset } = d.place;
        const ref = ++this.#ref;
        const frame = {
            ref,
            generation: d.generation,
            term,
            ranges: [{ partition, from: offset }],
            confirm: true,
            ...more,
        };
        this.#said.set(ref, { ...done, kind, frame });
        this.#send(ref);
        return done.promise;
    };
    /** Tells the broker what was said; without a connection, over the next one. */
    #send(ref) {
        const s = this.#said.get(ref);
        if (s && this.state === "live")
            this.link.send({ [s.kind]: { ...s.frame, sub: this.sub } });
    }
    /** Takes the outcome of what was said, an error or a code of the broker's. */
    #settle(ref, code, error) {
        const s = this.#said.get(ref);
        this.#said.delete(ref);
        if (error)
            s?.reject(error);
        else if (!s || !code || (code === "not_pending" && s.again))
            s?.resolve();
        else
            s.reject(new TidewireError(code, `the broker did not take the ${s.kind}`));
        this.#check();
    }
    #untaken(ref, f) {
        if (f.retryable)
            this.link.later(Math.max(this.pause.next(), f.retryAfterMs), () => this.#send(ref));
        else
            this.#settle(ref, f.code, refusal(f));
    }
    /** Ends a consumer that was closed, when nothing is left to be done. */
    #check() {
        if (this.#draining && !this.#running && !this.#said.size)
            this.end();
    }
    end(error) {
        super.end(error);
        clearInterval(this.#keeper);
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
