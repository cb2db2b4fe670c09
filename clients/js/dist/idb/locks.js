/**
 * Runs `work` while this page holds the named lock; false if it is not to be had and `now` is set.
 * Locks are given back by the browser when a page is gone, however it went.
 */
export async function exclusive(database, name, options, work) {
    const locks = globalThis.navigator?.locks;
    if (locks)
        return locks.request(`tidewire ${database.name} ${name}`, options, (lock) => lock && work());
    database.warn("there are no Web Locks here (an old browser, or neither https nor localhost): tabs cannot take turns");
    return work();
}
/** Calls `hide` when the page goes into the back-forward cache, or for good, and `show` when it comes back. */
export function onPage(hide, show, signal) {
    globalThis.addEventListener?.("pagehide", hide, { signal });
    globalThis.addEventListener?.("pageshow", (event) => event.persisted && show(), { signal });
}
