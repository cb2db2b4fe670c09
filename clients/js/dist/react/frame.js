/**
 * Gathers what is to be shown until the browser paints the next time, over all
 * feeds: then one frame is one render, however many messages came meanwhile.
 */
/** A hidden page paints nothing; it is brought up to date so often, in milliseconds. */
const unpainted = 100;
const due = new Set();
let frame = 0;
let timer;
/** Calls `show` with the next frame; once, however often it is asked for. */
export function withNextFrame(show) {
    const awaited = due.size > 0;
    due.add(show);
    if (awaited)
        return;
    timer = setTimeout(run, unpainted);
    if (typeof requestAnimationFrame === "function")
        frame = requestAnimationFrame(run);
}
function run() {
    clearTimeout(timer);
    if (typeof cancelAnimationFrame === "function")
        cancelAnimationFrame(frame);
    const all = [...due];
    due.clear();
    for (const show of all)
        show();
}
