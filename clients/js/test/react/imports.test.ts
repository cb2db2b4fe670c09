import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");

/** The files of the package that an entry is made of, and the packages that it asks for. */
async function made(entry: string): Promise<{ files: string[]; packages: string[] }> {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: [entry],
    outdir: "nowhere",
    write: false,
    bundle: true,
    format: "esm",
    packages: "external",
    metafile: true,
  });
  const outside = Object.values(metafile.outputs).flatMap((output) => output.imports.map((i) => i.path));
  return { files: Object.keys(metafile.inputs).sort(), packages: [...new Set(outside)] };
}

test("only src/react knows React, and it brings nothing of the core along", async () => {
  const others = ["src/index.ts", "src/idb/index.ts", "src/tabs/index.ts"];
  for (const entry of others.filter((entry) => existsSync(join(root, entry)))) {
    const { files, packages } = await made(entry);
    expect(packages, entry).toEqual([]);
    expect(
      files.filter((file) => file.startsWith("src/react/")),
      entry,
    ).toEqual([]);
  }
  expect(await made("src/react/index.ts")).toEqual({
    files: ["src/react/feed.ts", "src/react/frame.ts", "src/react/index.ts"],
    packages: ["react"],
  });
});

test("a bundler for server components finds the mark of client code first", () => {
  expect(readFileSync(join(root, "src/react/index.ts"), "utf8")).toMatch(/^"use client";\n/);
});
