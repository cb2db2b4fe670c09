/** A field of a protobuf message: its number, its value, and how that is written. Only varints are read. */
export type Field = [number: number, value: number | Uint8Array, wire: number];
/** Numbers of the frames that are looked into, as the proto has them. */
export declare const client: {
    connect: number;
    publish: number;
    subscribe: number;
    unsubscribe: number;
    pong: number;
    refresh: number;
    flow: number;
};
export declare const server: {
    welcome: number;
    published: number;
    subscribed: number;
    deliver: number;
    caughtUp: number;
    gap: number;
    progress: number;
    goAway: number;
    ping: number;
    error: number;
    unsubscribed: number;
    acked: number;
};
/** Reads the varint at a place. Returns it, and the place behind it. */
export declare function varint(bytes: Uint8Array, at: number): [value: number, end: number];
/** Takes a message apart. What is no varint is a view of it. */
export declare function parse(bytes: Uint8Array): Field[];
/** Puts a message together, in a buffer of its own. */
export declare function build(fields: Field[]): Uint8Array<ArrayBuffer>;
/** Puts a frame together. */
export declare function frame(type: number, fields: Field[]): Uint8Array<ArrayBuffer>;
/** The first value of a field; 0 if there is none. */
export declare function get(fields: Field[], number: number): number | Uint8Array;
