import type { StoreOptions } from "./types.js";
export declare const POSITIONS = "tidewire.positions";
export declare const OUTBOX = "tidewire.outbox";
/** A database that is opened again when it was closed under our feet. */
export interface Database {
    readonly name: string;
    /** The connection, perhaps one that was just closed. */
    db: IDBDatabase;
    /** Begins a transaction. All of its microtasks run before the event loop goes on. */
    begin(stores: string[], mode?: IDBTransactionMode): Promise<IDBTransaction>;
    /** Writes into one of our own object stores; if that fails, says that `what` is not kept, and gives false. */
    keep(store: string, what: string, write: (rows: IDBObjectStore) => void): Promise<boolean>;
    close(): void;
    /** Says something in the console, once. */
    warn(sentence: string): void;
}
/** The answer to a request. Who awaits it finds the transaction active. */
export declare function answer<T>(request: IDBRequest<T>): Promise<T>;
/** Resolves when the transaction is in the database, rejects when it never will be. */
export declare function complete(tx: IDBTransaction): Promise<void>;
export declare function openDatabase(name: string, options: StoreOptions): Promise<Database>;
