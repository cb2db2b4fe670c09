import { type Message } from "../index.js";
import { type Database } from "./database.js";
import type { ProcessHandler } from "./types.js";
/** A message to apply, or a position to keep that none stands at. */
export interface Step {
    position: string;
    message?: Message;
}
/** What is applied, and from where it goes on. */
export interface Job {
    readonly database: Database;
    readonly name: string;
    readonly stores: string[];
    readonly handler: ProcessHandler;
    /** The position in the database, as far as we know. */
    position: string | undefined;
    /** How many steps the last transaction took on. */
    taken: number;
}
/** Thrown where the database has another position than we: somebody else has gone on from there. */
export declare const FENCED: Error;
/**
 * Applies the first of `steps`, at most `limit`, in one transaction: the position, what the app
 * writes, and the check that nobody else has moved the position since. Says by `job.taken` how many,
 * and leaves nothing behind if it throws.
 */
export declare function apply(job: Job, steps: Step[], limit: number): Promise<void>;
