import type { Store, StoreOptions } from "./types.js";
export type * from "./types.js";
/**
 * Opens the app's database, and makes sure that it has what the client needs: the object stores
 * `tidewire.positions` and `tidewire.outbox`. The version stays the app's; only where the database
 * is older than the use of this module it must be raised once. Use one database for each broker, and
 * for each user who can be logged in here: what one has left in the outbox is sent by the next page.
 *
 * @throws TidewireError `store_version`; or what IndexedDB throws, where the browser keeps nothing
 */
export declare function openStore(name: string, options?: StoreOptions): Promise<Store>;
