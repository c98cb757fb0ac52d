import assert from "node:assert/strict";
import { it } from "node:test";
import { encodeAttribute, encodeU32 } from "./attribute.js";
import { decodeLink, IFINFOMSG_BYTES } from "./decode-link.js";

const IFLA_LINKINFO = 18;
const [IFLA_INFO_KIND, IFLA_INFO_DATA] = [1, 2];
const IFLA_VXLAN_LABEL_POLICY = 32;

/** iproute2 before 6.8 cannot make such a device; other options are tried with real ones in test/kernel/rtnetlink.test.ts. */
it("decodeLink() reads whether a vxlan device inherits the flow label", () => {
	const inherits = (...data: Buffer[]) => {
		const kind = encodeAttribute(IFLA_INFO_KIND, Buffer.from("vxlan\0"));
		const info = Buffer.concat([kind, encodeAttribute(IFLA_INFO_DATA, Buffer.concat(data))]);
		return decodeLink(Buffer.concat([Buffer.alloc(IFINFOMSG_BYTES), encodeAttribute(IFLA_LINKINFO, info)])).vxlan
			?.labelInherit;
	};
	assert.equal(inherits(encodeU32(IFLA_VXLAN_LABEL_POLICY, 1)), true);
	assert.equal(inherits(encodeU32(IFLA_VXLAN_LABEL_POLICY, 0)), false);
	assert.equal(inherits(), false, "a kernel that does not know it (before Linux 6.8)");
});
