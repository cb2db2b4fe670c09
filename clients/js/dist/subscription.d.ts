import { type Link, Member } from "./member.js";
import type { Handler, Message, Subscription as Public, SubscribeOptions } from "./types.js";
import type { Deliver, Gap, Progress, Subscribe, Subscribed } from "./wire/frames.js";
/**
 * A subscription is a cursor on the log. The broker has credit for so many bytes
 * as the queue may hold, and gets back what was handled: a slow handler slows its
 * own delivery, and costs no more memory than that.
 *
 * Two places are kept apart. The cursor is what was received: a delivery that does
 * not begin there is a hole, and the next Subscribe begins from it. `position`
 * follows what was handled, and is what an application keeps.
 */
export declare class Subscription extends Member implements Public {
    #private;
    readonly filter: string;
    constructor(link: Link, filter: string, options: SubscribeOptions, handler?: Handler);
    get position(): string;
    ask(): Subscribe;
    /**
     * Where the broker answers a position with one that is not
     * resumed, the Gap comes behind it: until then the old place stays, or a
     * connection that is lost in between would lose the gap in silence.
     */
    subscribed({ cursors, position }: Subscribed): void;
    deliver(f: Deliver, size: number): void;
    progress({ term, partition, through }: Progress): void;
    /** The position of a gap that lists several partitions is where all of them are. */
    gap(f: Gap): void;
    caughtUp(): void;
    [Symbol.asyncIterator](): AsyncGenerator<Message, void, undefined>;
    end(error?: Error): void;
    close(): Promise<void>;
}
