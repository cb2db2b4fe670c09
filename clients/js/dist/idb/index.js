import { answer, openDatabase, POSITIONS } from "./database.js";
import { openOutbox } from "./outbox.js";
import { Processing } from "./process.js";
/**
 * Opens the app's database, and makes sure that it has what the client needs: the object stores
 * `tidewire.positions` and `tidewire.outbox`. The version stays the app's; only where the database
 * is older than the use of this module it must be raised once. Use one database for each broker, and
 * for each user who can be logged in here: what one has left in the outbox is sent by the next page.
 *
 * @throws TidewireError `store_version`; or what IndexedDB throws, where the browser keeps nothing
 */
export async function openStore(name, options = {}) {
    const database = await openDatabase(name, options);
    const outbox = openOutbox(database);
    return {
        get db() {
            return database.db;
        },
        outbox,
        kept: outbox.kept,
        position: (of) => positionStore(database, of),
        process: (client, filter, o, handler) => new Processing(database, client, filter, o, handler),
        async close() {
            database.close();
        },
        async [Symbol.asyncDispose]() {
            database.close();
        },
    };
}
function positionStore(database, name) {
    return {
        async load() {
            const tx = await database.begin([POSITIONS]);
            return answer(tx.objectStore(POSITIONS).get(name));
        },
        async save(position) {
            await database.keep(POSITIONS, `the position ${name}`, (rows) => rows.put(position, name));
        },
    };
}
