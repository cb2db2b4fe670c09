import type { Link } from "./member.js";
import type { Data, OutboxOptions, Published, PublishOptions } from "./types.js";
import type { Limits, Publish, PublishResult } from "./wire/frames.js";
/**
 * Keeps published messages until they are answered, in the order of publishing.
 *
 * All that is unanswered is one row: what is in flight first, then what was not sent
 * yet. After a lost connection or a retryable refusal the row is sent again from its
 * beginning, so nothing new overtakes anything old. The naive way, to send again each
 * message that was refused, reorders: while it is on its way again, later ones are
 * accepted.
 */
export declare class Outbox {
    #private;
    constructor(options: OutboxOptions, link: Link);
    /** How many messages are not answered. */
    get count(): number;
    /** Reports whether an answer is due. */
    get waiting(): boolean;
    /** Takes a message. The promise has its outcome. */
    add(topic: string, data: Data, { signal, expires, ...options }: PublishOptions): Promise<Published>;
    /** Returns the next frame to send; undefined if there is none for now. Each message has a frame of its own. */
    next(limits: Limits): Publish | undefined;
    /** Takes answers. `term` is that of the positions, where a result has none of its own. */
    answered(results: readonly Partial<PublishResult>[], term?: string): void;
    /** Begins the row anew: on another connection, or on the same, to `resume`. What was in flight may have been stored. */
    lost(resume?: boolean): void;
    /** Gives up on everything; what a store has stays there. */
    end(why: Error): void;
}
