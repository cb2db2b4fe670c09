import type { Client } from "../index.js";
import type { Database } from "./database.js";
import type { ProcessEvents, ProcessHandler, ProcessOptions, Processing as Public } from "./types.js";
/**
 * Has a session for as long as this page has the lock of the name. A lock alone would not do: one
 * that was stolen, or a browser without locks, leaves two pages at work. So each transaction checks
 * the position as well, and who has lost begins a new session from where the other one is.
 */
export declare class Processing implements Public {
    #private;
    readonly name: string;
    readonly done: Promise<void>;
    state: ProcessEvents["state"];
    constructor(database: Database, client: Client, filter: string, options: ProcessOptions, handler: ProcessHandler);
    get position(): string;
    on<K extends keyof ProcessEvents>(event: K, listener: (value: ProcessEvents[K]) => void): () => void;
    close(): Promise<void>;
    [Symbol.asyncDispose](): Promise<void>;
}
