import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

/** Where the broker's program is; set by who has built it, for all processes of a run. */
export const BINARY = "TIDEWIRE_BINARY";

/**
 * Builds the broker into a temporary directory and names it in the environment;
 * a run that was given one takes that. Returns what removes it again. `root` is the
 * directory of the SDK.
 */
export function buildBroker(root: string): () => void {
  if (process.env[BINARY]) return () => {};
  const dir = mkdtempSync(join(tmpdir(), "tidewire-js-"));
  const file = join(dir, "tidewire");
  execFileSync("go", ["build", "-o", file, "./cmd/tidewire"], {
    cwd: resolve(root, "../.."),
    stdio: "inherit",
  });
  process.env[BINARY] = file;
  return () => {
    delete process.env[BINARY];
    rmSync(dir, { recursive: true, force: true });
  };
}
