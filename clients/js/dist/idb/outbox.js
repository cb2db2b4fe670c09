import { answer, OUTBOX } from "./database.js";
import { exclusive, onPage } from "./locks.js";
/**
 * Rows have the key [owner, number]: an owner is a page, and its rows are in the order of
 * publishing. A page holds a lock for its own rows, and for those of pages that are gone which it
 * has taken over: so two pages never send the same rows, and nothing is rewritten when they change
 * hands. Should two do it after all (there are no locks, or one page lay in the back-forward cache),
 * the ids make it harmless.
 */
export function openOutbox(database) {
    // In the order of time, so that what is older is sent first.
    const owner = Date.now().toString(36).padStart(9, "0") + Math.random().toString(36).slice(2);
    const keys = new WeakMap();
    const held = new Map();
    let last = 0;
    let written = Promise.resolve(true);
    const waiting = [];
    const hold = (name) => new Promise((resolve, reject) => {
        exclusive(database, `outbox ${name}`, { ifAvailable: true }, () => {
            resolve(true);
            return new Promise((release) => held.set(name, release));
        }).then(() => resolve(false), reject);
    });
    // A page in the back-forward cache may never come back: what it has left is sent by others.
    onPage(() => {
        for (const release of held.values())
            release();
    }, () => {
        for (const name of held.keys())
            hold(name).catch(() => { });
    });
    const write = (step) => {
        // Everything of one turn of the event loop is one transaction.
        if (waiting.push(step) > 1)
            return;
        queueMicrotask(() => {
            const steps = waiting.splice(0);
            written = database.keep(OUTBOX, "what is published and not yet answered", (rows) => {
                for (const step of steps)
                    step(rows);
            });
        });
    };
    return {
        async kept() {
            // What was published in this turn is written at its end.
            await null;
            return written;
        },
        async load() {
            if (!held.has(owner))
                await hold(owner);
            const found = [];
            const all = await answer((await database.begin([OUTBOX])).objectStore(OUTBOX).getAllKeys());
            for (const other of new Set(all.map((key) => key[0]))) {
                if (other === owner || !(await hold(other)))
                    continue;
                const rows = (await database.begin([OUTBOX])).objectStore(OUTBOX);
                const range = IDBKeyRange.bound([other], [other, []]);
                const numbers = answer(rows.getAllKeys(range));
                const entries = (await answer(rows.getAll(range)));
                for (const [i, key] of (await numbers).entries()) {
                    const entry = entries[i];
                    keys.set(entry, key);
                    found.push(entry);
                }
            }
            return found;
        },
        add(entry) {
            const key = [owner, ++last];
            keys.set(entry, key);
            write((rows) => rows.put(entry, key));
        },
        remove(entry) {
            const key = keys.get(entry);
            if (key)
                write((rows) => rows.delete(key));
        },
    };
}
