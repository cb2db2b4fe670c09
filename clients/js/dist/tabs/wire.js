// Numbers of the frames that are looked into, as the proto has them: of those that a
// client sends ...
export const CONNECT = 1;
export const PUBLISH = 2;
export const SUBSCRIBE = 3;
export const UNSUBSCRIBE = 4;
export const PONG = 5;
export const REFRESH = 6;
export const FLOW = 7;
// ... and of those that it gets.
export const WELCOME = 1;
export const PUBLISHED = 2;
export const SUBSCRIBED = 3;
export const DELIVER = 4;
export const CAUGHT_UP = 5;
export const GAP = 6;
export const PROGRESS = 7;
export const GO_AWAY = 8;
export const PING = 9;
export const ERROR = 10;
export const UNSUBSCRIBED = 11;
export const ACKED = 13;
/** Reads the varint at a place. Returns it, and the place behind it. */
export function varint(bytes, at) {
    let value = 0;
    for (let unit = 1;; unit *= 128) {
        const byte = bytes[at++] ?? 0;
        value += (byte & 127) * unit;
        if (byte < 128)
            return [value, at];
    }
}
function parts(value) {
    const bytes = [];
    for (; value > 127; value = Math.floor(value / 128))
        bytes.push((value % 128) + 128);
    bytes.push(value);
    return bytes;
}
/** Takes a message apart. What is no varint is a view of it. */
export function parse(bytes) {
    const fields = [];
    let at = 0;
    while (at < bytes.length) {
        let tag;
        let value;
        [tag, at] = varint(bytes, at);
        const wire = tag & 7;
        if (wire === 0) {
            [value, at] = varint(bytes, at);
            fields.push([tag >>> 3, value, wire]);
        }
        else {
            let size = wire === 1 ? 8 : 4;
            if (wire === 2)
                [size, at] = varint(bytes, at);
            fields.push([tag >>> 3, bytes.subarray(at, (at += size)), wire]);
        }
    }
    return fields;
}
/** Puts a message together, in a buffer of its own. */
export function build(fields) {
    const all = [];
    for (const [number, value, wire] of fields) {
        all.push(parts(number * 8 + wire));
        if (typeof value === "number")
            all.push(parts(value));
        else if (wire === 2)
            all.push(parts(value.length), value);
        else
            all.push(value);
    }
    const bytes = new Uint8Array(all.reduce((size, part) => size + part.length, 0));
    let at = 0;
    for (const part of all) {
        bytes.set(part, at);
        at += part.length;
    }
    return bytes;
}
/** Puts a frame together. */
export function frame(type, fields) {
    return build([[type, build(fields), 2]]);
}
/** The first value of a field; 0 if there is none. */
export function get(fields, number) {
    return fields.find((f) => f[0] === number)?.[1] ?? 0;
}
/** Gives a field another value, where it is. */
export function set(fields, number, value) {
    for (const f of fields)
        if (f[0] === number)
            f[1] = value;
}
