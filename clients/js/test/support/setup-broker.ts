import { buildBroker } from "./binary.js";

/** Vitest calls this once for a run, before its first worker. */
export default function setup(): () => void {
  return buildBroker(process.cwd());
}
