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
export function write(place: Place | string): string {
  if (typeof place === "string") return place;
  return [...new Map(place.others).set(place.partition, place.offset)]
    .sort((a, b) => a[0] - b[0])
    .reduce(
      (text, [partition, offset]) => `${text}-${partition ? `${partition}_` : ""}${offset}`,
      `p${place.term}`,
    );
}
