import assert from "node:assert/strict";
import { it } from "node:test";
import { encodeMessage, parseMessages } from "./netlink.js";

it("parseMessages() reads what encodeMessage() wrote, several in one datagram", () => {
	const datagram = Buffer.concat([
		encodeMessage(16, 2, 7, Buffer.from("abcde")),
		Buffer.alloc(3), // a message of 21 bytes is padded to 24
		encodeMessage(3, 2, 7, Buffer.alloc(4)),
	]);
	const messages = [...parseMessages(datagram)];
	assert.deepEqual(
		messages.map(({ type, flags, sequence, body }) => [type, flags, sequence, body.length]),
		[
			[16, 2, 7, 5],
			[3, 2, 7, 4],
		],
	);
	assert.equal(messages[0]?.body.toString(), "abcde");
});

it("parseMessages() refuses a length that lies, with both numbers", () => {
	const message = encodeMessage(16, 0, 1, Buffer.alloc(8));
	assert.throws(() => [...parseMessages(message.subarray(0, 20))], /it claims 24 bytes of 20/);
	message.writeUInt32LE(3, 0);
	assert.throws(() => [...parseMessages(message)], /it claims 3 bytes of 24/);
});
