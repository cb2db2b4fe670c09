import { Member } from "./member.js";
import { Received } from "./message.js";
import { write } from "./position.js";
/** How long a position that has moved may wait to be kept while messages are handled, in milliseconds. */
const unkept = 50;
/**
 * A subscription is a cursor on the log. The broker has credit for so many bytes
 * as the queue may hold, and gets back what was handled: a slow handler slows its
 * own delivery, and costs no more memory than that.
 *
 * Two places are kept apart. The cursor is what was received: a delivery that does
 * not begin there is a hole, and the next Subscribe begins from it. `position`
 * follows what was handled, and is what an application keeps.
 */
export class Subscription extends Member {
    #options;
    #credit;
    /** What the next Subscribe begins from. A Gap may be on its way to it: see subscribed. */
    #from;
    #cursor = new Map();
    #kept = "";
    #saved = "";
    #savedAt = 0;
    #saving = false;
    #queue = [];
    /** Bytes that wait to be handled, and that were handled and not given back. */
    #held = 0;
    #owed = 0;
    #wake = () => { };
    #looping = false;
    #told = false;
    constructor(link, filter, options, handler) {
        super(link, `the subscription to ${filter}`, options.signal);
        this.filter = filter;
        this.#options = options;
        this.#credit = options.credit ?? 1 << 20;
        if (handler)
            this.#handle(handler);
        this.#load();
    }
    get position() {
        return write(this.#kept);
    }
    async #load() {
        const { store, from } = this.#options;
        try {
            const kept = await store?.load();
            if (kept || /^p\w+-/.test(from ?? ""))
                this.#from = this.#kept = this.#saved = kept || from;
            this.link.begin(this);
        }
        catch (error) {
            this.end(error);
        }
    }
    ask() {
        this.#owed = 0;
        const { from = "" } = this.#options;
        const credit = Math.max(this.#credit - this.#held, 0);
        return { ...this.#options, filter: this.filter, from: write(this.#from ?? from), credit };
    }
    /**
     * Where the broker answers a position with one that is not
     * resumed, the Gap comes behind it: until then the old place stays, or a
     * connection that is lost in between would lose the gap in silence.
     */
    subscribed({ cursors, position }) {
        this.#cursor = new Map(cursors.map((c) => [c.partition, c.offset]));
        // Kept at once: who comes back before the first message must not begin anew.
        if (this.#from === undefined)
            this.#keep((this.#from = position));
        this.confirmed("behind");
    }
    /** Moves the cursor of one partition, and returns the place where all of them are. */
    #move(term, partition, offset) {
        this.#cursor.set(partition, offset);
        return (this.#from = { term, partition, offset, others: new Map(this.#cursor) });
    }
    deliver(f, size) {
        const { term, partition, through } = f;
        const above = this.#cursor.get(partition) ?? 0;
        if (term && f.after > above) {
            this.link.release(this);
            this.link.rest(this);
            return;
        }
        this.pause.failures = 0;
        this.#held += size;
        // Ephemeral messages are nowhere in the log, and move no cursor.
        const end = term && through > above ? this.#move(term, partition, through) : undefined;
        this.#push({ chunk: f, above: term ? above : -1, size, end });
    }
    progress({ term, partition, through }) {
        if (through <= (this.#cursor.get(partition) ?? 0))
            return;
        const end = this.#move(term, partition, through);
        const last = this.#queue.at(-1);
        if (last)
            last.end = end;
        else
            this.#keep(end);
    }
    /** The position of a gap that lists several partitions is where all of them are. */
    gap(f) {
        const [term, ...places] = f.position.slice(1).split("-");
        let end = this.#move(term, f.partition, f.offset);
        if (places[1])
            end = this.#from = f.position;
        this.#push({ end, news: () => super.gap(f) });
    }
    caughtUp() {
        const news = () => {
            if (this.sub)
                this.enter("live");
            if (!this.#told)
                this.emit("caughtup");
            this.#told = true;
        };
        this.#push({ news });
    }
    #push(e) {
        this.#queue.push(e);
        this.#wake();
    }
    /** Gives the broker credit for what was handled, with many frames in one. */
    #handled(size) {
        this.#held -= size;
        this.#owed += size;
        if (!this.sub || this.#owed * 2 < this.#credit)
            return;
        this.link.send({ flow: { sub: this.sub, credit: this.#owed } });
        this.#owed = 0;
    }
    #keep(place) {
        this.#kept = place;
        if (this.#options.store && Date.now() - this.#savedAt > unkept)
            this.#save();
    }
    /** Keeps the position: one save after the other, since one that takes long must not be the last to arrive. */
    async #save() {
        const place = this.#kept;
        const { store } = this.#options;
        if (!store || this.#saving || place === this.#saved)
            return;
        this.#saving = true;
        this.#savedAt = Date.now();
        try {
            await store.save(this.position);
            this.#saved = place;
            this.#saving = false;
            if (!this.#queue.length || this.state === "ended")
                this.#save(); // what moved meanwhile
        }
        catch (error) {
            this.#saving = false;
            this.link.warn("the position is not kept:", error);
        }
    }
    async #handle(handler) {
        this.#looping = true;
        for (const m of this.#messages()) {
            if (!m) {
                await this.#more();
                continue;
            }
            try {
                const result = handler(m);
                if (result)
                    await result; // each wait costs more than the message
            }
            catch (error) {
                this.end(error);
                return this.#save();
            }
        }
    }
    async *[Symbol.asyncIterator]() {
        if (this.#looping)
            throw new Error("subscribe again for another loop");
        this.#looping = true;
        try {
            for (const m of this.#messages()) {
                if (m)
                    yield m;
                else
                    await this.#more();
            }
            await this.done;
        }
        finally {
            this.end();
            this.#save();
        }
    }
    #more() {
        return new Promise((wake) => {
            this.#wake = wake;
        });
    }
    /** Gives the messages, and undefined where one must wait for more. A message counts as handled when the next one is asked for. */
    *#messages() {
        for (;;) {
            const e = this.#queue[0];
            if (e) {
                yield* this.#messagesOf(e);
                if (this.#queue[0] === e)
                    this.#queue.shift();
            }
            else {
                this.#save();
                if (this.state === "ended")
                    return;
                yield;
            }
        }
    }
    *#messagesOf(e) {
        const { chunk, above = 0, size = 0, news } = e;
        for (const record of chunk?.records ?? []) {
            const { term, partition } = chunk;
            const { offset } = record;
            if (offset <= above)
                continue;
            const { others } = (e.end ?? {});
            const place = term ? { term, partition, offset, others } : "";
            yield new Received(record, place);
            if (place)
                this.#keep(place);
            if (this.#queue[0] !== e)
                return; // it was closed in between
        }
        if (e.end)
            this.#keep(e.end); // a Progress may have moved it since
        this.#handled(size);
        news?.();
    }
    end(error) {
        if (!error)
            this.#queue = [];
        super.end(error);
        this.#wake();
    }
    async close() {
        this.end();
    }
}
