/** A field of a protobuf message: its number, its value, and how that is written. Only varints are read. */
export type Field = [number: number, value: number | Uint8Array, wire: number];
export declare const CONNECT = 1;
export declare const PUBLISH = 2;
export declare const SUBSCRIBE = 3;
export declare const UNSUBSCRIBE = 4;
export declare const PONG = 5;
export declare const REFRESH = 6;
export declare const FLOW = 7;
export declare const WELCOME = 1;
export declare const PUBLISHED = 2;
export declare const SUBSCRIBED = 3;
export declare const DELIVER = 4;
export declare const CAUGHT_UP = 5;
export declare const GAP = 6;
export declare const PROGRESS = 7;
export declare const GO_AWAY = 8;
export declare const PING = 9;
export declare const ERROR = 10;
export declare const UNSUBSCRIBED = 11;
export declare const ACKED = 13;
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
/** Gives a field another value, where it is. */
export declare function set(fields: Field[], number: number, value: number): void;
