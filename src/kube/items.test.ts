// Lists taken apart, however they are cut.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Items } from "./items.js";

const LIST = {
	kind: "PodList",
	metadata: { resourceVersion: "7", annotations: { items: ["not", "these"] } },
	items: [{ a: 1, nested: { items: [{ b: "]}" }] }, text: 'quoted \\" { [ "' }, { text: "\\", more: [] }, { é: "😀" }],
	after: { items: [] },
};

function taken(bytes: Buffer, step: number): { items: unknown[]; envelope: unknown } {
	const items: unknown[] = [];
	const reader = new Items((item) => items.push(item));
	for (let at = 0; at < bytes.length; at += step) reader.push(bytes.subarray(at, at + step));
	return { items, envelope: reader.envelope() };
}

for (const [what, indent] of [
	["compact", undefined],
	["with spaces", "\t"],
] as const)
	test(`a list that is ${what}, cut at every length`, () => {
		const bytes = Buffer.from(JSON.stringify(LIST, null, indent));
		for (let step = 1; step <= bytes.length; step++) {
			const { items, envelope } = taken(bytes, step);
			assert.deepEqual(items, LIST.items, `in steps of ${step}`);
			assert.deepEqual(envelope, { ...LIST, items: [] });
		}
	});

test("an empty list, and one whose items are null", () => {
	for (const items of [[], null])
		assert.deepEqual(taken(Buffer.from(JSON.stringify({ metadata: {}, items })), 3), {
			items: [],
			envelope: { metadata: {}, items },
		});
});

test("what is no list, or not all of it, is a SyntaxError", () => {
	for (const text of ["", "<html>", '{"items":[', '{"items":[{"a":1}', '{"items":[{"a":1}]', '{"items":[{a}]}'])
		assert.throws(() => taken(Buffer.from(text), 2), SyntaxError, text);
});

test("an element that does not end is not kept for ever", () => {
	const reader = new Items(() => {});
	reader.push(Buffer.from('{"items":[{"a":"'));
	const more = Buffer.alloc(1 << 20, "x");
	assert.throws(() => {
		for (let i = 0; i < 20; i++) reader.push(more);
	}, /longer than/);
});
