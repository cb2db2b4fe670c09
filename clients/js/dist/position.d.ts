/**
 * A place in the log: an offset of one partition, and where the other partitions
 * are, if the log has several. It becomes text only when somebody asks.
 */
export interface Place {
    term: string;
    partition: number;
    offset: number;
    others?: Map<number, number> | undefined;
}
/** Writes a position as docs/protocol.md says. */
export declare function write(place: Place | string): string;
