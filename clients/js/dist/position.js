/** Writes a position as docs/protocol.md says. */
export function write(place) {
    if (typeof place === "string")
        return place;
    return [...new Map(place.others).set(place.partition, place.offset)]
        .sort((a, b) => a[0] - b[0])
        .reduce((text, [partition, offset]) => `${text}-${partition ? `${partition}_` : ""}${offset}`, `p${place.term}`);
}
