import { type Place } from "./position.js";
import type { Message } from "./types.js";
import type { WireMessage } from "./wire/frames.js";
/** A message as it came, with its place: a string, or what makes one. */
export declare class Received implements Message {
    #private;
    readonly topic: string;
    readonly id: string;
    readonly publisher: string;
    readonly key: string;
    readonly contentType: string;
    readonly bytes: Uint8Array;
    readonly ephemeral: boolean;
    constructor(wire: WireMessage, place: Place | string);
    get position(): string;
    get time(): Date;
    get expires(): Date | undefined;
    get headers(): Record<string, string>;
    get data(): unknown;
    text(): string;
    json<T>(): T;
}
