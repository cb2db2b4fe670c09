import { apply } from "./apply.js";
import { answer, POSITIONS } from "./database.js";
/** Messages that are held while a transaction is under way, and that one transaction takes on at most. */
const most = 256;
/** One subscription, from the position in the database, whose messages are applied until it is over. */
export class Session {
    #job;
    #steps = [];
    #over = false;
    #error;
    #wake = () => { };
    #room = () => { };
    constructor(job) {
        this.#job = job;
    }
    /** Ends it, after the transaction that is under way. What waits is dropped: it comes again. */
    leave(error) {
        this.#error ??= error;
        this.#over = true;
        this.#wake();
    }
    async run(subscribe) {
        const job = this.#job;
        const tx = await job.database.begin([POSITIONS]);
        job.position = await answer(tx.objectStore(POSITIONS).get(job.name));
        if (this.#over)
            return;
        const sub = subscribe((m) => this.#handle(m), {
            load: () => job.position,
            save: (position) => this.#keep(position),
        });
        // Who begins with `new` goes on from there after a reload, even if nothing has come yet.
        sub.ready.then(() => this.#keep(sub.position), () => { });
        sub.done.then(() => this.leave(), (error) => this.leave(error));
        try {
            await this.#apply();
        }
        finally {
            this.#room();
            await sub.close();
        }
        if (this.#error)
            throw this.#error;
    }
    /** Takes a message. The subscription believes it handled then; its position is not what counts here. */
    #handle(message) {
        this.#push({ position: message.position, message });
        if (this.#steps.length < most)
            return;
        return new Promise((resolve) => {
            this.#room = resolve;
        });
    }
    /** Takes a position that stands behind everything that was taken. */
    #keep(position) {
        if (position && position !== (this.#steps.at(-1) ?? this.#job).position)
            this.#push({ position });
    }
    #push(step) {
        this.#steps.push(step);
        this.#wake();
    }
    async #apply() {
        let limit = most;
        while (!this.#over) {
            if (!this.#steps.length) {
                await new Promise((resolve) => {
                    this.#wake = resolve;
                });
                continue;
            }
            try {
                await apply(this.#job, this.#steps, limit);
                this.#steps.splice(0, this.#job.taken);
                limit = Math.min(limit * 2, most);
                this.#room();
            }
            catch (error) {
                // What stands before the one that fails is to be applied all the same.
                if (this.#job.taken < 2)
                    throw error;
                limit = 1;
            }
        }
    }
}
