// A bug that cannot be planted any more proves nothing: the lines that the proof "planted" changes must be there.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { PLANTS } from "./proof/planted.js";

const root = fileURLToPath(new URL("../..", import.meta.url));

for (const { bug, file, line } of PLANTS)
	test(`"${bug}" can be planted in ${file}`, () => {
		const found = readFileSync(`${root}/${file}`, "utf8").split(line).length - 1;
		assert.ok(found > 0, `there is no ${JSON.stringify(line)}`);
	});
