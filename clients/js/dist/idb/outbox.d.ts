import type { OutboxStore } from "../index.js";
import { type Database } from "./database.js";
import type { Store } from "./types.js";
/**
 * Rows have the key [owner, number]: an owner is a page, and its rows are in the order of
 * publishing. A page holds a lock for its own rows, and for those of pages that are gone which it
 * has taken over: so two pages never send the same rows, and nothing is rewritten when they change
 * hands. Should two do it after all (there are no locks, or one page lay in the back-forward cache),
 * the ids make it harmless.
 */
export declare function openOutbox(database: Database): OutboxStore & Pick<Store, "kept">;
