import { TidewireError } from "../index.js";
import { answer, complete, POSITIONS } from "./database.js";
/** Thrown where the database has another position than we: somebody else has gone on from there. */
export const FENCED = new Error("fenced");
/**
 * Applies the first of `steps`, at most `limit`, in one transaction: the position, what the app
 * writes, and the check that nobody else has moved the position since. Says by `job.taken` how many,
 * and leaves nothing behind if it throws.
 */
export async function apply(job, steps, limit) {
    job.taken = 0;
    const tx = await job.database.begin([...job.stores, POSITIONS], "readwrite");
    const completed = complete(tx);
    completed.catch(() => { });
    const positions = tx.objectStore(POSITIONS);
    const stored = () => answer(positions.get(job.name));
    let { position } = job;
    try {
        if ((await stored()) !== position)
            throw FENCED;
        // While it runs more steps may come.
        for (const step of steps) {
            job.taken++;
            position = step.position || position;
            if (step.message) {
                const result = job.handler(tx, step.message);
                if (isPromise(result))
                    await alive(result, stored);
                // Who answers requests by callbacks may be in the midst of it: only the end of the transaction tells.
                else if (!(result instanceof IDBRequest))
                    break;
            }
            if (job.taken === limit)
                break;
        }
        if (position)
            positions.put(position, job.name);
        await completed;
        job.position = position;
    }
    catch (error) {
        try {
            tx.abort();
        }
        catch {
            // It has aborted by itself.
        }
        await completed.catch(() => { });
        throw explained(tx.error ?? error);
    }
}
/**
 * Waits for `result` with the transaction kept open, by one request after another; else it would be
 * committed as soon as the handler waits for something else, with the half of its writes.
 */
async function alive(result, request) {
    let settled = false;
    const settle = () => {
        settled = true;
    };
    result.then(settle, settle);
    // Where nothing had to be awaited that is all.
    await null;
    while (!settled)
        await request();
    await result;
}
function isPromise(value) {
    return typeof value?.then === "function";
}
function explained(error) {
    if (error?.name !== "TransactionInactiveError")
        return error;
    return new TidewireError("transaction_over", "The handler has awaited something else than requests of its transaction, which ends that: do such work elsewhere. Nothing of this message was written.");
}
