import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { buildProgram } from "./cli/program.js";

const oncache = fileURLToPath(new URL("../../bin/oncache", import.meta.url));

function run(...args: string[]) {
	const { status, stdout, stderr } = spawnSync(oncache, args, { encoding: "utf8" });
	return { status, stdout, stderr };
}

const USAGE_ERRORS: { args: string[]; says: string }[] = [
	{ args: ["verison"], says: "oncache: unknown command 'verison'\n(Did you mean version?)\n" },
	{ args: ["version", "--jsn"], says: "oncache: unknown option '--jsn'\n(Did you mean --json?)\n" },
	{
		args: ["version", "x"],
		says: "oncache: too many arguments for 'version'. Expected 0 arguments but got 1.\n",
	},
];

for (const { args, says } of USAGE_ERRORS)
	test(`oncache ${args.join(" ")} is a usage error: exit code 2 and what was meant`, () => {
		assert.deepEqual(run(...args), { status: 2, stdout: "", stderr: says });
	});

test("oncache without a command shows the help as an error", () => {
	const { status, stdout, stderr } = run();
	assert.deepEqual({ status, stdout }, { status: 2, stdout: "" });
	assert.match(stderr, /^Usage: oncache /);
});

test("oncache --help and oncache help version print help and succeed", () => {
	assert.match(run("--help").stdout, /^Usage: oncache [\s\S]* status /);
	const help = run("help", "version");
	assert.equal(help.status, 0);
	assert.match(help.stdout, /^Usage: oncache version /);
});

test("oncache version --json prints nothing but JSON", () => {
	const { status, stdout, stderr } = run("version", "--json");
	assert.deepEqual({ status, stderr }, { status: 0, stderr: "" });
	assert.deepEqual(Object.keys(JSON.parse(stdout)), ["oncache", "kernel", "node"]);
});

test("oncache is quiet when its reader goes away", () => {
	const { stderr } = spawnSync("sh", ["-c", `"${oncache}" --help | true`], { encoding: "utf8" });
	assert.equal(stderr, "");
});

const { signal } = new AbortController();
const names = (await buildProgram([], { signal })).commands.map((command) => command.name());

for (const name of names)
	test(`the command ${name} loads when it is chosen, and describes itself`, async () => {
		const program = await buildProgram([name], { signal });
		const command = program.commands.find((candidate) => candidate.name() === name);
		assert.notEqual(command?.description() || undefined, undefined);
	});
