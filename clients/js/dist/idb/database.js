import { TidewireError } from "../index.js";
export const POSITIONS = "tidewire.positions";
export const OUTBOX = "tidewire.outbox";
/** The answer to a request. Who awaits it finds the transaction active. */
export function answer(request) {
    return new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
    });
}
/** Resolves when the transaction is in the database, rejects when it never will be. */
export function complete(tx) {
    return new Promise((resolve, reject) => {
        tx.oncomplete = () => resolve();
        tx.onabort = () => reject(tx.error ?? Error("the transaction was aborted"));
    });
}
export async function openDatabase(name, options) {
    const said = new Set();
    const warn = (sentence) => {
        if (options.log !== false && said.size < said.add(sentence).size)
            console.warn(`tidewire: ${sentence}`);
    };
    let opening;
    let closed = false;
    const open = async () => {
        const db = await openConnection(name, options, warn);
        // Who wants to upgrade or delete the database waits until all others have closed it. `close`
        // comes when the browser has closed it, as when the data of the site are cleared.
        const gone = () => {
            db.close();
            opening = undefined;
        };
        db.onversionchange = gone;
        db.onclose = gone;
        database.db = db;
        return db;
    };
    const connection = () => {
        if (closed)
            throw new TidewireError("closed", `The store ${name} was closed.`);
        opening ??= open();
        opening.catch(() => {
            opening = undefined;
        });
        return opening;
    };
    const database = {
        name,
        db: undefined,
        async begin(stores, mode) {
            return (await connection()).transaction(stores, mode);
        },
        async keep(store, what, write) {
            try {
                const tx = await database.begin([store], "readwrite");
                write(tx.objectStore(store));
                // Not left to the event loop: the page may be gone before it turns.
                tx.commit?.();
                await complete(tx);
                return true;
            }
            catch (error) {
                warn(`${what} is not kept over a reload: ${error}`);
                return false;
            }
        },
        close() {
            closed = true;
            database.db.close();
        },
        warn,
    };
    await connection();
    return database;
}
function openConnection(name, options, warn) {
    const { version = 1, upgrade } = options;
    return new Promise((resolve, reject) => {
        const request = indexedDB.open(name, version);
        request.onupgradeneeded = (event) => {
            const db = request.result;
            const tx = request.transaction;
            const failed = (error) => {
                reject(error);
                tx.abort();
            };
            try {
                Promise.resolve(upgrade?.(db, event.oldVersion, tx)).catch(failed);
                // After the app, which may have deleted everything that it found.
                for (const store of [POSITIONS, OUTBOX]) {
                    if (!db.objectStoreNames.contains(store))
                        db.createObjectStore(store);
                }
            }
            catch (error) {
                failed(error);
            }
        };
        request.onblocked = () => warn(`another tab holds an old version of ${name} open: close or reload it`);
        request.onerror = () => {
            const error = request.error;
            reject(error.name === "VersionError"
                ? wrongVersion(`The database ${name} was made by a newer page: reload this one, or`, version)
                : error);
        };
        request.onsuccess = () => {
            const db = request.result;
            if (db.objectStoreNames.contains(OUTBOX))
                return resolve(db);
            db.close();
            reject(wrongVersion(`The database ${name} lacks Tidewire's object stores`, db.version));
        };
    });
}
function wrongVersion(what, above) {
    return new TidewireError("store_version", `${what}: raise \`version\` above ${above}.`);
}
