import assert from "node:assert/strict";
import { it } from "node:test";
import { KernelError } from "./error.js";

it("KernelError names action, cause and code", () => {
	const error = new KernelError("Cannot list routes", 105);
	assert.equal(error.code, "ENOBUFS");
	assert.equal(error.errno, 105);
	assert.equal(error.message, "Cannot list routes: no buffer space available (ENOBUFS)");
});

it("KernelError prefers the kernel's own words", () => {
	assert.equal(new KernelError("Cannot x", 22, "Invalid prefix").message, "Cannot x: Invalid prefix (EINVAL)");
});

it("KernelError keeps a number that has no name", () => {
	assert.equal(new KernelError("Cannot x", 524).message, "Cannot x: errno 524");
});
