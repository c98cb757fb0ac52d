import assert from "node:assert/strict";
import { it } from "node:test";
import { encodeAttribute, encodeU32 } from "./attribute.js";
import { decodeFilter } from "./decode-tc.js";

const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_BPF_NAME = 7;
const TCA_BPF_ID = 11;

function tcmsg(): Buffer {
	const body = Buffer.alloc(20);
	body.writeInt32LE(5, 4);
	body.writeUInt32LE(1, 8);
	body.writeUInt32LE(0xfffffff2, 12);
	body.writeUInt32LE(0xc001_0300, 16);
	return body;
}

const kind = encodeAttribute(TCA_KIND, Buffer.from("bpf\0"));

it("decodeFilter() reads name and id of a bpf classifier", () => {
	const options = Buffer.concat([encodeAttribute(TCA_BPF_NAME, Buffer.from("egress\0")), encodeU32(TCA_BPF_ID, 99)]);
	assert.deepEqual(decodeFilter(Buffer.concat([tcmsg(), kind, encodeAttribute(TCA_OPTIONS, options)])), {
		ifindex: 5,
		parent: 0xfffffff2,
		kind: "bpf",
		priority: 0xc001,
		handle: 1,
		bpfName: "egress",
		bpfId: 99,
	});
});

it("decodeFilter() skips the message that opens a priority", () => {
	assert.equal(decodeFilter(Buffer.concat([tcmsg(), kind])), undefined);
});
