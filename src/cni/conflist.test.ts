import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Conflist, type Entry, listFromConf, readConflist, withoutPlugin, withPlugin } from "./conflist.js";

const ENTRY: Entry = { type: "oncache-cni", last: true };

/** As their authors write them. */
const FLANNEL = `{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
`;
const ONE_LINE = `{"cniVersion":"1.0.0","name":"k8s-pod-network","plugins":[{"type":"calico","log_level":"info","mtu":0,"ipam":{"type":"calico-ipam"}},{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`;
const TABS =
	'{\n\t"plugins": [ { "type": "a", "n": 12345678901234567890, "s": "], } \\" [" }\t],\r\n\t"name": "n", "x": [1, [2]]\n}';
const LISTS = { FLANNEL, ONE_LINE, TABS };

const types = (text: string): string[] => (readConflist(text) as Conflist).types;

describe("a list", () => {
	for (const [name, text] of Object.entries(LISTS)) {
		test(`of ${name} gets the plugin as its last, and nothing else of it changes`, () => {
			const added = withPlugin(text, ENTRY);
			const [before, after] = [JSON.parse(text), JSON.parse(added)];
			assert.deepEqual(after, { ...before, plugins: [...before.plugins, ENTRY] });
			assert.equal(withoutPlugin(added), text);
		});

		test(`of ${name} that has it already stays as it is`, () => {
			const added = withPlugin(text, ENTRY);
			assert.equal(withPlugin(added, ENTRY), added);
		});
	}

	test("is written as its author would have", () => {
		assert.match(withPlugin(FLANNEL, ENTRY), /\n {4}},\n {4}\{"type":"oncache-cni","last":true}\n {2}]\n}\n$/);
	});

	test("whose plugin is not the last is put right, wherever it was", () => {
		const [first, middle] = [
			FLANNEL.replace('"plugins": [', '"plugins": [ {"type": "oncache-cni"},'),
			FLANNEL.replace(
				'    {\n      "type": "portmap"',
				'    {"type":"oncache-cni","socket":"/x"},\n    {\n      "type": "portmap"',
			),
		];
		for (const text of [first, middle]) {
			assert.deepEqual(types(withPlugin(text, ENTRY)), ["flannel", "portmap", "oncache-cni"]);
			assert.deepEqual(types(withoutPlugin(text)), ["flannel", "portmap"]);
		}
	});

	test("with two keys of that name: the last one counts, as for every reader of JSON", () => {
		const text = '{"name":"n","plugins":[{"type":"a"}],"plugins":[{"type":"b"}]}';
		assert.deepEqual(types(withPlugin(text, ENTRY)), ["b", "oncache-cni"]);
	});

	test("that no runtime would use says why", () => {
		assert.match(String(readConflist("{")), /not JSON/);
		assert.match(String(readConflist("[]")), /not a JSON object/);
		assert.match(String(readConflist('{"plugins":[{"type":"a"}]}')), /no "name"/);
		assert.match(String(readConflist('{"name":"n","plugins":[]}')), /no "plugins"/);
		assert.match(String(readConflist('{"name":"n","plugins":[{}]}')), /no "type"/);
	});

	test("of a version that is not known yet is recognised: the plugin would refuse every pod", () => {
		const of = (versions: string): string[] =>
			(readConflist(`{"name":"n",${versions}"plugins":[{"type":"a"}]}`) as Conflist).unknownVersions;
		assert.deepEqual(of('"cniVersion":"1.1.0",'), []);
		assert.deepEqual(of(""), []);
		assert.deepEqual(of('"cniVersion":"2.0.0",'), ["2.0.0"]);
		assert.deepEqual(of('"cniVersion":"1.0.0","cniVersions":["1.1.0","1.2.0"],'), ["1.2.0"]);
	});
});

test("a configuration of one plugin becomes a list of one, with all that it says", () => {
	const conf = '{\n  "cniVersion": "0.4.0",\n  "name": "mynet",\n  "type": "bridge",\n  "n": 12345678901234567890\n}\n';
	const list = listFromConf(conf) as string;
	assert.deepEqual(JSON.parse(list), { cniVersion: "0.4.0", name: "mynet", plugins: [JSON.parse(conf)] });
	assert.match(list, /12345678901234567890/);
	assert.deepEqual(types(withPlugin(list, ENTRY)), ["bridge", "oncache-cni"]);
	assert.deepEqual(listFromConf('{"name":"x"}'), { why: 'it has no "type"' });
});
