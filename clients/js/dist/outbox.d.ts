import type { Data, OutboxEntry, OutboxOptions, Published, PublishOptions } from "./types.js";
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
    /**
     * @param pump Called when there may be something to send.
     * @param refused Told of messages of an earlier page that the broker refuses.
     */
    constructor(options: OutboxOptions, pump: () => void, later: (ms: number, f: () => void) => void, refused: (entry: OutboxEntry | undefined, error: Error) => void);
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
    /** Begins the row anew on another connection. What was in flight may have been stored. */
    lost(): void;
    /** Gives up on everything; what a store has stays there. */
    end(why: Error): void;
}
