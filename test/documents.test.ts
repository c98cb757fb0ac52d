// What the documents call a test is one: the file exists, and has the name that they quote.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const DOCUMENTS = ["ARCHITECTURE.md", "docs/RELIABILITY.md", "docs/COVERAGE.md"];
const PROOFS = "test/proof/main.ts";

/** `test/a.test.ts` "a name", "another": the file, and the names up to whatever else is said. Without a folder it is of test/e2e. */
const NAMED = /`((?:test|src)\/[\w/*.-]+\.ts|[\w-]+\.test\.ts)`((?::? "[^"]+",?(?: and)?)*)/g;

for (const document of DOCUMENTS)
	test(`${document} names tests that exist`, () => {
		const named = [...readFileSync(`${root}/${document}`, "utf8").matchAll(NAMED)];
		assert.ok(named.length > 0, "no test is named there: this test has read the wrong thing");
		const missing = named.flatMap(([, file = "", quoted = ""]) => {
			const files = filesOf(file);
			if (files.length === 0) return [file];
			const text = files.map((path) => readFileSync(path, "utf8")).join("\n");
			const names = [...quoted.matchAll(/"([^"]+)"/g)].map(([, name = ""]) => name);
			return names.filter((name) => !text.includes(name)).map((name) => `${file} "${name}"`);
		});
		assert.deepEqual(missing, []);
	});

/** "*" stands for anything in the file's name. */
function filesOf(named: string): string[] {
	const [, folder = "test/e2e", name = ""] = /^(?:(.*)\/)?([^/]+)$/.exec(named) ?? [];
	const pattern = new RegExp(`^${name.replaceAll(".", "\\.").replaceAll("*", ".*")}$`);
	const path = `${root}/${folder}`;
	if (!existsSync(path)) return [];
	return readdirSync(path)
		.filter((file) => pattern.test(file))
		.map((file) => `${path}/${file}`);
}

test("docs/RELIABILITY.md names proofs that exist", () => {
	const text = readFileSync(`${root}/docs/RELIABILITY.md`, "utf8");
	const proofs = new Set(readFileSync(`${root}/${PROOFS}`, "utf8").match(/^\t\w+(?=: async \(\) =>)/gm)?.map((name) => name.trim())); // biome-ignore format: one expression
	const named = [...text.matchAll(/proofs? \*([\w-]+)\*/g)].map(([, name = ""]) => name);
	assert.ok(proofs.size > 0 && named.length > 0);
	assert.deepEqual(
		named.filter((name) => !proofs.has(name)),
		[],
	);
});
