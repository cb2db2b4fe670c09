/**
 * Gathers what is to be shown until the browser paints the next time, over all
 * feeds: then one frame is one render, however many messages came meanwhile.
 */
/** Calls `show` with the next frame; once, however often it is asked for. */
export declare function withNextFrame(show: () => void): void;
