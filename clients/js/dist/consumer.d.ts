import { type Link, Member } from "./member.js";
import type { ConsumeOptions, Consumer as Public, Worker } from "./types.js";
import type { Acked, Deliver, Subscribe, Subscribed, WireError } from "./wire/frames.js";
/**
 * This client's membership in a consumer. Its messages wait in a queue for a free
 * worker. `#live` has those that are not known to be settled, so that one which the
 * broker delivers again over another connection is not worked on twice.
 *
 * What was said of messages and is not answered when the connection is lost is sent
 * again over the next one: an ack and a reject say what holds for ever, and twice is
 * once. A nack is not: by then it would be about another attempt.
 */
export declare class Consumer extends Member implements Public {
    #private;
    readonly name: string;
    constructor(link: Link, name: string, filter: string, worker: Worker, options: ConsumeOptions);
    ask(): Subscribe;
    subscribed({ ackWaitMs }: Subscribed): void;
    acked({ ref, error, refused }: Acked): void;
    error(f: WireError): void;
    lost(): void;
    deliver({ term, partition, generation, records, attempts }: Deliver): void;
    end(error?: Error): void;
    close(): Promise<void>;
}
