import { Lasting } from "./events.js";
import type { Link, Member, Taker } from "./member.js";
import type * as api from "./types.js";
import type { ClientFrame, GoAway, Ping, Published, Refreshed, Welcome, WireError } from "./wire/frames.js";
/**
 * A client is one state machine, and everything that happens is one of its arrows:
 *
 *     idle --- shown, connect() ---> connecting --- Welcome ---> open
 *      ^                              ^      |                     |
 *      | hidden (from anywhere)       |      | failed              | lost, silence,
 *                      pause over,    |      v                     | offline, GoAway
 *                      online, shown  +--- waiting <---------------+
 *
 *     from anywhere: close(), or a refusal for good ---> closed
 *
 * A socket whose turn is over is detached and forgotten at once: closing one to a
 * silent peer can take a browser half a minute. What it reports late is harmless,
 * since its handlers are gone and `#turn`, which counts attempts, has moved on.
 */
export declare class Connection extends Lasting implements api.Client, Link, Taker {
    #private;
    state: api.State;
    constructor(urls: string | string[], options: api.ConnectOptions);
    /** Takes what the browser tells of the page and of the network. */
    handleEvent({ type }: {
        type: string;
    }): void;
    published({ results, term }: Published): void;
    ping({ seq }: Ping): void;
    error(error: WireError): void;
    welcome(f: Welcome): void;
    goAway({ reconnectAfterMs, elsewhere }: GoAway): void;
    /** Takes when the token expires, by the broker's clock, and replaces it in time. */
    refreshed({ expiresAt }: Refreshed): void;
    pump(): void;
    publish(topic: string, data: api.Data, options?: api.PublishOptions): Promise<api.Published>;
    subscribe(filter: string, first?: api.Handler | api.SubscribeOptions, options?: api.SubscribeOptions): api.Subscription;
    consume(name: string, filter: string, worker: api.Worker, options?: api.ConsumeOptions): api.Consumer;
    history(topic: string, options?: api.HistoryOptions): Promise<api.History>;
    begin(m: Member): void;
    release(m: Member): void;
    rest(m: Member, atLeast?: number): void;
    forget(m: Member): void;
    send(frame: ClientFrame): void;
    later(ms: number, f: () => void): void;
    warn(...what: unknown[]): void;
    close({ timeout }?: {
        timeout?: number;
    }): Promise<void>;
}
