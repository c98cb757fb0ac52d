import assert from "node:assert/strict";
import { test } from "node:test";
import { Leases } from "./leases.js";

function leases() {
	const clock = { now: 1000 };
	const held: number[] = [];
	return { clock, held, leases: new Leases({ holdLearning: (ms) => held.push(ms) }, () => clock.now) };
}

test("learning is held as long as the longest lease", () => {
	const { held, leases: all, clock } = leases();
	const long = all.acquire(5000);
	clock.now += 1000;
	const short = all.acquire(100);
	assert.deepEqual(held, [5000, 4000]);
	assert.equal(all.release(long), true);
	assert.equal(held.at(-1), 100);
	assert.equal(all.release(short), true);
	assert.equal(held.at(-1), 0);
	assert.equal(all.count, 0);
});

test("a lease whose user has died ends by itself, and cannot be renewed", () => {
	const { leases: all, clock } = leases();
	const id = all.acquire(500);
	clock.now += 499;
	assert.equal(all.renew(id, 500), true);
	clock.now += 500;
	assert.equal(all.count, 0);
	assert.equal(all.renew(id, 500), false);
	assert.equal(all.release(id), false);
});

test("the end of one user's lease leaves the others' alone", () => {
	const { held, leases: all, clock } = leases();
	const first = all.acquire(1000);
	const second = all.acquire(3000);
	clock.now += 500;
	all.release(first);
	assert.equal(held.at(-1), 2500);
	assert.equal(all.renew(second, 3000), true);
	assert.equal(held.at(-1), 3000);
});
