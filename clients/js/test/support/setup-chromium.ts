import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { chromiumPath, SDK } from "./chromium.js";

const missing =
  "Chromium is missing, so no test runs in a real browser: install it (on Debian: apt-get install chromium), or name it in CHROME_PATH.";

/** Vitest calls this once for a run: bundles the SDK as the broker serves it, from the sources as they are. */
export default async function setup(): Promise<() => void> {
  if (!chromiumPath()) {
    if (process.env.CI) throw new Error(missing);
    console.warn(missing);
  }
  const directory = mkdtempSync(join(tmpdir(), "tidewire-sdk-"));
  const script = pathToFileURL(join(process.cwd(), "scripts/build.mjs")).href;
  const { bundle } = (await import(script)) as { bundle(directory: string): Promise<void> };
  await bundle(directory);
  process.env[SDK] = directory;
  return () => rmSync(directory, { recursive: true, force: true });
}
