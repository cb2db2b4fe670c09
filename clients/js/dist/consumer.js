import { closed, refusal, TidewireError } from "./errors.js";
import { deferred } from "./events.js";
import { Member } from "./member.js";
import { Received } from "./message.js";
import { write } from "./position.js";
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
 * What was said of messages gathers while the broker has not answered what was said
 * before: a slow disk makes the frames larger, not more. What is not answered when
 * the connection is lost is sent again over the next one: an ack and a reject say
 * what holds for ever, and twice is once. A nack is not: by then it would be about
 * another attempt.
 */
export class Consumer extends Member {
    name;
    #filter;
    #options;
    #worker;
    #queue = [];
    #running = 0;
    #live = new Map();
    #said = [];
    #sent = new Map();
    #ref = 0;
    #held = false;
    #draining = false;
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
            this.pause.failures = 0;
            this.confirmed("live");
            this.#flush();
        }
        else if (acked)
            this.#answered(acked);
        else if (gap)
            this.tellGap(gap);
        else if (error && /ack|ext|rej/.test(error.request))
            this.#untaken(error.ref, error);
        else if (error)
            this.refused(error);
    }
    lost() {
        super.lost();
        for (const s of [...this.#sent.values()].flat().reverse()) {
            s.again = true;
            if (/^ack|rej/.test(s.kind))
                this.#said.unshift(s);
            else
                s.done.resolve();
        }
        this.#sent.clear();
        this.#held = false;
        this.#check();
    }
    #deliver({ term, partition, generation, records, attempts }) {
        records.forEach((record, i) => {
            const d = new Delivery(record, { term, partition, offset: record.offset }, generation, attempts[i] ?? 1, this.#say);
            if (this.#live.get(d.position)?.generation === generation)
                return;
            this.#live.set(d.position, d);
            this.#queue.push(d);
        });
        // What waits or is worked on is kept from being delivered again.
        const { extend = true, settings } = this.#options;
        if (extend)
            this.#keeper ??= setInterval(() => this.#extend(), (settings?.ackWaitMs ?? 30_000) / 3);
        this.#work();
    }
    #extend() {
        if (!this.#live.size) {
            clearInterval(this.#keeper);
            this.#keeper = undefined;
        }
        for (const d of this.#live.values())
            d.extend();
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
        const head = JSON.stringify({ kind, generation: d.generation, term: d.place.term, ...more });
        this.#said.push({ place: d.place, kind, head, done });
        queueMicrotask(() => this.#flush());
        return done.promise;
    };
    /** Sends what was said, if the broker has answered what was said before. */
    #flush() {
        if (this.state !== "live" || this.#held || this.#sent.size)
            return;
        const frames = new Map();
        for (const s of this.#said.splice(0))
            frames.set(s.head, [...(frames.get(s.head) ?? []), s]);
        for (const [head, all] of frames) {
            const { kind, ...rest } = JSON.parse(head);
            const ref = ++this.#ref;
            this.#sent.set(ref, all);
            // One range for each: of several in one the broker does not tell that it does not know one.
            const ranges = all.map(({ place: { partition, offset } }) => ({ partition, from: offset }));
            this.link.send({ [kind]: { ...rest, ref, sub: this.sub, ranges, confirm: true } });
        }
    }
    #answered(f) {
        if (f.error)
            return this.#untaken(f.ref, f.error);
        for (const s of this.#sent.get(f.ref) ?? []) {
            const { partition, offset } = s.place;
            const no = f.refused.find((r) => r.partition === partition && r.from <= offset && offset <= (r.through || r.from));
            if (!no || (no.code === "not_pending" && s.again))
                s.done.resolve();
            else
                s.done.reject(new TidewireError(no.code, `the broker did not take the ${s.kind} of message ${write(s.place)} (${no.code})`));
        }
        this.#sent.delete(f.ref);
        this.#flush();
        this.#check();
    }
    /** Takes the refusal of a whole frame. */
    #untaken(ref, f) {
        const all = this.#sent.get(ref) ?? [];
        this.#sent.delete(ref);
        if (f.retryable) {
            this.#said.unshift(...all);
            this.#held = true;
            this.link.later(Math.max(this.pause.next(), f.retryAfterMs), () => {
                this.#held = false;
                this.#flush();
            });
        }
        else {
            for (const s of all)
                s.done.reject(refusal(f));
            this.#check();
        }
    }
    /** Ends a consumer that was closed, when nothing is left to be done. */
    #check() {
        if (this.#draining && !this.#running && !this.#said.length && !this.#sent.size)
            this.end();
    }
    end(error) {
        super.end(error);
        clearInterval(this.#keeper);
        this.#queue = [];
        for (const s of [...this.#said.splice(0), ...[...this.#sent.values()].flat()])
            s.done.reject(error ?? closed(this.title));
        this.#sent.clear();
    }
    close() {
        this.#draining = true;
        this.#check();
        return this.done;
    }
}
