import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "..");
const read = (...path: string[]) => readFileSync(join(root, ...path), "utf8");
const readme = read("README.md");
const source = readdirSync(join(root, "src"))
  .filter((name) => name.endsWith(".ts"))
  .map((name) => read("src", name))
  .join("\n");

test("the examples of README.md compile", () => {
  const blocks = [...readme.matchAll(/```js\n(.*?)```/gs)].map((m) => m[1]!);
  expect(blocks.length).toBeGreaterThan(10);
  const files = new Map(blocks.map((text, i) => [join(root, `test/block${i}.ts`), example(text)]));
  const options: ts.CompilerOptions = {
    ...ts.readConfigFile(join(root, "tsconfig.json"), ts.sys.readFile).config.compilerOptions,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    lib: ["lib.es2022.d.ts", "lib.esnext.disposable.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts"],
    types: ["node"],
    rootDir: undefined,
    noEmit: true,
    noImplicitAny: false,
    noUnusedLocals: false,
    exactOptionalPropertyTypes: false,
    paths: {
      "@tidewire/client": [join(root, "src/index.ts")],
      "@tidewire/client/react": [join(root, "src/react/index.ts")],
    },
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists } = host;
  host.fileExists = (name) => files.has(name) || fileExists(name);
  host.getSourceFile = (name, ...rest) => {
    const text = files.get(name);
    return text === undefined ? getSourceFile(name, ...rest) : ts.createSourceFile(name, text, rest[0]);
  };
  const program = ts.createProgram([...files.keys()], options, host);
  const wrong = [...files.keys()]
    .flatMap((name) => ts.getPreEmitDiagnostics(program, program.getSourceFile(name)))
    .map((d) => `${d.file?.fileName}: ${ts.flattenDiagnosticMessageText(d.messageText, "\n")}`);
  expect(wrong).toEqual([]);
}, 60_000);

/** What the reader has already, where an example does not say it. */
const given: Record<string, string> = {
  client: 'declare const client: import("@tidewire/client").Client;',
  show: "declare function show(...what: unknown[]): void;",
  paint: "declare function paint(what: unknown): void;",
  send: "declare function send(what: unknown): Promise<void>;",
  notify: "declare function notify(text: string): void;",
  connect: 'import { connect } from "@tidewire/client";',
  useSubscription: 'import { useSubscription } from "@tidewire/client/react";',
};

function example(text: string): string {
  const missing = Object.entries(given).filter(
    ([name]) => text.includes(name) && !new RegExp(`(const|import.*) ${name}\\b`).test(text),
  );
  return [...missing.map(([, line]) => line), text, "export {};"].join("\n");
}

test("the codes of README.md are those of the broker and of the client", () => {
  const [, table] = readme.match(/<!-- codes: begin.*?-->\n(.*?)<!-- codes: end -->/s)!;
  const broker = new Map(
    [...read("../../docs/protocol.md").matchAll(/^\| `(\w+)` \|[^|]*\|[^|]*\| (yes|no) \|/gm)].map((m) => [
      m[1],
      m[2],
    ]),
  );
  let rows = 0;
  for (const [, codes, retryable] of table!.matchAll(/^\| (`.*?) \| (yes|no) \|/gm)) {
    for (const [, code] of codes!.matchAll(/`(\w+)`/g)) {
      rows++;
      if (source.includes(`"${code}"`)) continue;
      expect(`${code} ${retryable}`).toBe(`${code} ${broker.get(code)}`);
    }
  }
  expect(rows).toBeGreaterThan(20);
});

test("every code of the client's own is in README.md", () => {
  const own = [...source.matchAll(/new TidewireError\(\s*"(\w+)"/g)].map((m) => m[1]!);
  expect(own.length).toBeGreaterThan(5);
  expect(own.filter((code) => !readme.includes(`\`${code}\``))).toEqual([]);
});

test("the links of README.md lead somewhere", () => {
  for (const [, target] of readme.matchAll(/\]\((?!https?:)([^)#]+)?(?:#[^)]*)?\)/g)) {
    if (target) expect(() => readdirOrFile(target), target).not.toThrow();
  }
});

function readdirOrFile(target: string): unknown {
  try {
    return read(target);
  } catch {
    return readdirSync(join(root, target));
  }
}

test("the anchors of README.md are there", () => {
  for (const [, target = "README.md", anchor] of readme.matchAll(/\]\((?!https?:)([^)#]+)?#([^)]+)\)/g)) {
    const headings = [...read(target).matchAll(/^#+ (.*)$/gm)].map((m) => slug(m[1]!));
    expect(headings, `${target}#${anchor}`).toContain(anchor);
  }
});

const slug = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^\w\- ]/g, "")
    .replaceAll(" ", "-");
