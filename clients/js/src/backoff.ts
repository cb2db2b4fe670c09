const min = 500;
const max = 60_000;

/**
 * Counts failures and says how long to wait: a random time between half a second
 * and a bound that doubles with each failure, up to a minute. Without the randomness
 * all clients of a broker that restarts would come back at once, again and again.
 */
export class Backoff {
  failures = 0;

  next(atLeast = 0): number {
    const bound = Math.min(max, min * 2 ** ++this.failures);
    return Math.max(min + Math.random() * (bound - min), atLeast);
  }
}
