import type { Message, PositionStore, Subscription } from "../index.js";
import { type Job } from "./apply.js";
export type Subscribe = (handle: (m: Message) => unknown, store: PositionStore) => Subscription;
/** One subscription, from the position in the database, whose messages are applied until it is over. */
export declare class Session {
    #private;
    constructor(job: Job);
    /** Ends it, after the transaction that is under way. What waits is dropped: it comes again. */
    leave(error?: unknown): void;
    run(subscribe: Subscribe): Promise<void>;
}
