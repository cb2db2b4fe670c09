import type { Reporter, TestModule } from "vitest/node";

/** Lists the tests that were skipped; where CI is set, a skipped test is a failure. */
export default class Skipped implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const lines = modules.flatMap((module) =>
      [...module.children.allTests("skipped")].map((test) => {
        const result = test.result();
        const note = result.state === "skipped" && result.note ? `: ${result.note}` : "";
        return `  ${module.relativeModuleId}: ${test.fullName}${note}`;
      }),
    );
    if (lines.length === 0) return;
    console.log(`Skipped:\n${lines.join("\n")}`);
    if (process.env.CI) process.exitCode = 1;
  }
}
