// Rows as the other tables of the project have them: each side and their ratio,
// median (least to most), and whether the ratio is what it is to be.

const sorted = (values) => values.toSorted((a, b) => a - b);
export const median = (values) => sorted(values)[Math.floor(values.length / 2)];
const short = (n) => Number(n.toPrecision(3)).toString();
const text = (values, unit = "") =>
  `${short(median(values))}${unit} (${short(Math.min(...values))} to ${short(Math.max(...values))})`;

/** Lets the sides take so many turns; the first one warms up and is left out. The order changes. */
export async function turns(rounds, sides) {
  const names = Object.keys(sides);
  const all = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    const order = round % 2 ? names.toReversed() : names;
    for (const name of order) {
      const value = await sides[name]();
      if (round > 0) all[name].push(value);
    }
  }
  return all;
}

/** One row: ours and the other one, turn by turn. `least` is what the ratio is to be at least, `most` at most. */
export function row(name, ours, other, { unit, least, most } = {}) {
  const ratios = ours.map((v, i) => v / other[i]);
  const ratio = median(ratios);
  const met = (least === undefined || ratio >= least) && (most === undefined || ratio <= most);
  const aim = least !== undefined ? `>= ${least}` : most !== undefined ? `<= ${most}` : "";
  return {
    cells: [name, text(ours, unit), text(other, unit), text(ratios), aim, aim && (met ? "ok" : "MISSED")],
    met,
  };
}

/** What was printed. */
export const said = [];

export function say(line) {
  said.push(line);
  console.log(line);
}

/** Prints rows in columns; returns whether all of them are met. */
export function print(title, heads, rows) {
  const lines = [heads, ...rows.map((r) => r.cells)];
  const widths = heads.map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  say(`\n${title}`);
  for (const line of lines)
    say(
      line
        .map((cell, i) => cell.padEnd(widths[i]))
        .join("  ")
        .trimEnd(),
    );
  return rows.every((r) => r.met);
}
