import { resolve } from "node:path";
import { defineConfig } from "vitest/config";
import Skipped from "./test/support/skipped.js";

/** What tests import from the sources of the core comes from the file that browsers load. */
const served = {
  name: "served",
  enforce: "pre" as const,
  resolveId: (id: string) =>
    id.endsWith("/src/index.js") ? resolve(import.meta.dirname, "served/client.js") : undefined,
};

/**
 * `unit` needs nothing but Node.js, as does `served`; `live` starts the real broker; `browser` drives
 * a real Chromium against it. What only Node.js 22, Deno and Bun can show is in
 * test/runtimes, which is not vitest's.
 */
export default defineConfig({
  test: {
    pool: "forks",
    maxWorkers: 2,
    reporters: ["default", new Skipped()],
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/**/*.test.{ts,tsx}"],
          exclude: ["test/live/**", "test/browser/**", "test/runtimes/**"],
          testTimeout: 20_000,
        },
      },
      {
        // What the broker serves is minified: the tests of the core run on that, too.
        plugins: [served],
        test: { name: "served", include: ["test/core/*.test.ts"], testTimeout: 20_000 },
      },
      {
        test: {
          name: "live",
          include: ["test/live/**/*.test.ts"],
          globalSetup: ["test/support/setup-broker.ts"],
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
      {
        test: {
          name: "browser",
          include: ["test/browser/**/*.test.ts"],
          globalSetup: ["test/support/setup-broker.ts", "test/support/setup-chromium.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
