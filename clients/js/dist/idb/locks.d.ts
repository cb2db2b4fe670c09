import type { Database } from "./database.js";
/**
 * Runs `work` while this page holds the named lock; false if it is not to be had and `now` is set.
 * Locks are given back by the browser when a page is gone, however it went.
 */
export declare function exclusive(database: Database, name: string, options: LockOptions, work: () => Promise<unknown>): Promise<unknown>;
/** Calls `hide` when the page goes into the back-forward cache, or for good, and `show` when it comes back. */
export declare function onPage(hide: () => void, show: () => void, signal?: AbortSignal): void;
