import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BINARY } from "./binary.js";

/** The real broker, on a data directory and a pair of addresses that it keeps over restarts. */
export interface Broker extends AsyncDisposable {
  /** Base URL for clients, such as `http://127.0.0.1:40001`. */
  readonly url: string;
  /** Base URL for operators. */
  readonly admin: string;
  /** Of the process that runs now; 0 if none does. */
  readonly pid: number;
  /** What it has written in all its lives, for the log of a failure. */
  readonly logs: string;
  /** kill -9; resolves when nothing of it is left. */
  kill(): Promise<void>;
  /** Starts it again, on the same addresses and data; ends it first if it runs. */
  restart(): Promise<void>;
  /** Lets it say goodbye (SIGTERM); what it stored stays. */
  terminate(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}

/** What can be chosen. */
export interface BrokerOptions {
  /** Further arguments of `tidewire serve`, such as `--config`. */
  args?: string[];
  env?: Record<string, string>;
  /** With `--dev`: then a supervisor starts it again when it dies, and it has a session of its own for the feed. */
  dev?: boolean;
  /** Whose pages may connect. Default: `*`. */
  origins?: string;
}

const startLimit = 60_000;

/** Starts a broker and waits until it is ready. Whoever starts one stops it; if this process dies, it is ended too. */
export async function startBroker(options: BrokerOptions = {}): Promise<Broker> {
  const broker = new Life(options);
  try {
    await broker.restart();
  } catch (error) {
    await broker.stop();
    throw error;
  }
  return broker;
}

class Life implements Broker {
  url = "";
  admin = "";
  logs = "";
  readonly #dir = mkdtempSync(join(tmpdir(), "tidewire-data-"));
  readonly #options: BrokerOptions;
  #child: ChildProcess | undefined;
  #guard: ChildProcess | undefined;
  #exited: Promise<unknown> = Promise.resolve();

  constructor(options: BrokerOptions) {
    this.#options = options;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  async restart(): Promise<void> {
    if (this.#child) await this.kill();
    const written = this.logs.length;
    const child = this.#launch();
    const deadline = Date.now() + startLimit;
    while (!(await this.#ready(written))) {
      if (!this.#child) throw new Error(`the broker ended at start, status ${child.exitCode}:\n${this.logs}`);
      if (Date.now() > deadline)
        throw new Error(`the broker is not ready after ${startLimit / 1000} s:\n${this.logs}`);
      await new Promise((wake) => setTimeout(wake, 20));
    }
  }

  #launch(): ChildProcess {
    const program = process.env[BINARY];
    if (!program) throw new Error(`${BINARY} is not set: run the tests through npm, which builds the broker`);
    const { args = [], env = {}, dev = false, origins = "*" } = this.#options;
    const flags = [
      ...["--data", join(this.#dir, "data"), "--listen", host(this.url), "--admin", host(this.admin)],
      ...(dev ? ["--dev"] : []),
    ];
    const child = spawn(program, ["serve", ...flags, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...clean(process.env), ...(origins && { TIDEWIRE_ALLOWED_ORIGINS: origins }), ...env },
    });
    child.on("error", (error) => {
      this.logs += `${error}\n`;
    });
    this.#child = child;
    // With --dev the child is the supervisor. What it wrote ends when the broker has
    // ended, too, which may be a moment later.
    this.#exited = once(child, "close").then(() => {
      this.#child = undefined;
      this.#guard?.kill("SIGKILL");
    });
    this.#exited.catch(() => {});
    this.#guard = guard(child, this.#dir);
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.logs += text;
      });
    }
    return child;
  }

  /** The first line says the addresses, which the system chose at the first start. */
  async #ready(written: number): Promise<boolean> {
    const line = /listens on (\S+) .*, admin (\S+),/.exec(this.logs.slice(written));
    if (!line) return false;
    this.url = line[1] ?? "";
    this.admin = line[2] ?? "";
    return (await answers(`${this.url}/readyz`)) && (await answers(`${this.admin}/readyz`));
  }

  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async terminate(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    this.#child?.kill(signal);
    await this.#exited;
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#dir, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/**
 * Ends the broker and removes its data when this process is gone, however it went: the
 * guard reads a pipe that only this process holds open. It is in a session of its own,
 * so that Ctrl-C does not end it first.
 */
function guard(child: ChildProcess, dir: string): ChildProcess {
  const script = 'cat >/dev/null; kill -9 "$0" 2>/dev/null; sleep 0.2; rm -rf "$1"';
  const watch = spawn("sh", ["-c", script, String(child.pid), dir], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  watch.unref();
  (watch.stdin as unknown as { unref(): void }).unref();
  return watch;
}

async function answers(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { headers: { connection: "close" } });
    await response.arrayBuffer();
    return response.ok;
  } catch {
    return false;
  }
}

/** A broker under test takes its settings from its arguments alone. */
function clean(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("TIDEWIRE_")));
}

function host(url: string): string {
  return url ? new URL(url).host : "127.0.0.1:0";
}
