/**
 * Counts failures and says how long to wait: a random time between half a second
 * and a bound that doubles with each failure, up to a minute. Without the randomness
 * all clients of a broker that restarts would come back at once, again and again.
 */
export declare class Backoff {
    failures: number;
    next(atLeast?: number): number;
}
