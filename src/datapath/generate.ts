// Generates layout.ts from the object's BTF and the contract's limits: `npm run generate`. The output is committed;
// test/kernel/layout.test.ts fails when it is stale.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Btf, type BtfType } from "./btf.js";
import { readBtf } from "./libbpf.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const OBJECT = `${root}bpf/oncache.bpf.o`;
const HEADER = `${root}bpf/oncache.h`;
const OUTPUT = `${root}src/datapath/layout.ts`;

/** Structs that user space reads or writes; those inside them come along. */
const STRUCTS = [
	"flow_key", "flow_key6", "verdict", "flow", "flow6", "slot", "host", "pod", "tunnel", "veth", "control", "settings", "counts", "counter", "backoff", "pending",
]; // biome-ignore format: a list
const ENUMS = ["direction", "slot_state", "mark_mode"];

const camel = (name: string): string => name.replace(/_+([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
const pascal = (name: string): string => camel(`_${name}`);

interface Field {
	type: string;
	read: (at: string) => string;
	write: (at: string, value: string) => string;
}

function scalar(type: string, get: string, set: string, wrap = (text: string): string => text): Field {
	return {
		type,
		read: (at) => wrap(`view.get${get}`.replace("$", at)),
		write: (at, value) => `view.set${set}`.replace("$", at).replace("#", value),
	};
}

/** Meaning comes from the typedef's name. Everything in network order is named here, and only that. */
const TYPEDEFS: Record<string, Field> = {
	ipv4_t: scalar("Ipv4", "Uint32($)", "Uint32($, #)", (text) => `${text} as Ipv4`),
	ipv6_t: { type: "Ip", read: (at) => `readIp(view, ${at})`, write: (at, value) => `writeIp(view, ${at}, ${value})` },
	port_t: scalar("number", "Uint16($)", "Uint16($, #)"),
	tunnel_word_t: scalar("number", "Uint32($)", "Uint32($, #)"),
	vni_t: scalar("number", "Uint32($)", "Uint32($, # * 256)", (text) => `${text} >>> 8`),
	mac_t: {
		type: "MacAddress",
		read: (at) => `readMac(bytesOf(view, ${at}, 6))`,
		write: (at, value) => `bytesOf(view, ${at}, 6).set(macBytes(${value}))`,
	},
};
const INTS: Record<string, Field> = {
	"1": scalar("number", "Uint8($)", "Uint8($, #)"),
	"2": scalar("number", "Uint16($, true)", "Uint16($, #, true)"),
	"4": scalar("number", "Uint32($, true)", "Uint32($, #, true)"),
	"4s": scalar("number", "Int32($, true)", "Int32($, #, true)"),
	"8s": scalar("bigint", "BigInt64($, true)", "BigInt64($, #, true)"),
	"8": scalar("bigint", "BigUint64($, true)", "BigUint64($, #, true)"),
};

function fieldOf(btf: Btf, id: number): Field {
	const type: BtfType = btf.get(id);
	if (type.kind === "typedef") return TYPEDEFS[type.name] ?? fieldOf(btf, type.type);
	if (type.kind === "const" || type.kind === "volatile") return fieldOf(btf, type.type);
	if (type.kind === "int") {
		const field = INTS[`${type.size}${type.signed && type.size >= 4 ? "s" : ""}`];
		if (field) return field;
	}
	if (type.kind === "struct")
		return {
			type: pascal(type.name),
			read: (at) => `${camel(type.name)}.read(view, ${at})`,
			write: (at, value) => `${camel(type.name)}.write(view, ${at}, ${value})`,
		};
	if (type.kind === "array") {
		const element = btf.resolve(type.type);
		const size = btf.sizeOf(type.type);
		if (element.kind === "int" && size === 1) {
			const length = type.length;
			return {
				type: "Uint8Array",
				read: (at) => `bytesOf(view, ${at}, ${length}).slice()`,
				write: (at, value) => `bytesOf(view, ${at}, ${length}).set(${value})`,
			};
		}
		const inner = fieldOf(btf, type.type);
		return {
			type: `${inner.type}[]`,
			read: (at) => `Array.from({ length: ${type.length} }, (_, i) => ${inner.read(`${at} + i * ${size}`)})`,
			write: (at, value) => `for (const [i, item] of ${value}.entries()) ${inner.write(`${at} + i * ${size}`, "item")}`,
		};
	}
	throw new Error(`Cannot generate a field of BTF type ${id} (${type.kind})`);
}

function structText(btf: Btf, name: string): string {
	const found = btf.types.find((type) => type.kind === "struct" && type.name === name);
	if (found?.kind !== "struct") throw new Error(`Cannot generate "${name}": not in the object's BTF`);
	const members = found.members
		.filter((member) => !/^pad\d*$/.test(member.name))
		.map((member) => ({ name: camel(member.name), offset: member.offset, field: fieldOf(btf, member.type) }));
	const at = (offset: number): string => (offset === 0 ? "at" : `at + ${offset}`);
	return [
		`export interface ${pascal(name)} {`,
		...members.map(({ name, field }) => `\t${name}: ${field.type};`),
		"}",
		"",
		`export const ${camel(name)} = {`,
		`\tsize: ${found.size},`,
		`\toffset: { ${members.map(({ name, offset }) => `${name}: ${offset}`).join(", ")} },`,
		`\tread: (view: DataView, at = 0): ${pascal(name)} => ({`,
		...members.map(({ name, offset, field }) => `\t\t${name}: ${field.read(at(offset))},`),
		"\t}),",
		`\twrite: (view: DataView, at: number, value: ${pascal(name)}): void => {`,
		...members.map(({ name, offset, field }) => `\t\t${field.write(at(offset), `value.${name}`)};`),
		"\t},",
		"};",
		"",
	].join("\n");
}

function enumValues(btf: Btf, name: string): { name: string; value: number }[] {
	const found = btf.types.find((type) => type.kind === "enum" && type.name === name);
	if (found?.kind !== "enum") throw new Error(`Cannot generate "${name}": not in the object's BTF`);
	const prefix = `${name.toUpperCase()}_`;
	return found.values
		.map(({ name, value }) => ({
			name: name.startsWith(prefix) ? name.slice(prefix.length) : name.replace(/^[A-Z]+_/, ""),
			value,
		}))
		.filter(({ name }) => name !== "MAX");
}

/** Names by number, and their union without those that are left out. */
function namesText(btf: Btf, name: string, without: string[] = []): string {
	const names = enumValues(btf, name).map((entry) => entry.name.toLowerCase());
	const rest = names.filter((entry) => !without.includes(entry));
	return [
		`/** By number: enum ${name}. */`,
		`export const ${name.toUpperCase()}S = [${names.map((entry) => `"${entry}"`).join(", ")}] as const;`,
		`export type ${pascal(name)} = ${rest.map((entry) => `"${entry}"`).join(" | ")};`,
		"",
	].join("\n");
}

function limitsText(header: string): string {
	const lines = [...header.matchAll(/^#define ([A-Z0-9_]+) (0x[0-9a-fA-F]+|\d+)(?:ULL)?\b/gm)];
	return `${lines.map(([, name, value]) => `export const ${name} = ${value};`).join("\n")}\n`;
}

/** The text of layout.ts for this object and header. */
export function generate(object = OBJECT, header = HEADER): string {
	const btf = new Btf(readBtf(object));
	return [
		"// Generated from bpf/oncache.h by `npm run generate`: layouts as the kernel sees them, in this machine's byte order.",
		"// biome-ignore-all format: generated",
		'import { type Ip, readIp, writeIp } from "../net/ip.js";',
		'import type { Ipv4 } from "../net/ipv4.js";',
		'import { type MacAddress, macBytes, readMac } from "../net/mac.js";',
		"",
		"function bytesOf(view: DataView, at: number, length: number): Uint8Array {",
		"\treturn new Uint8Array(view.buffer, view.byteOffset + at, length);",
		"}",
		"",
		limitsText(readFileSync(header, "utf8")),
		namesText(btf, "reason", ["fast"]),
		namesText(btf, "lesson"),
		...ENUMS.map(
			(name) =>
				`export const ${pascal(name)} = { ${enumValues(btf, name)
					.map(({ name, value }) => `${name}: ${value}`)
					.join(", ")} } as const;\n`,
		),
		...STRUCTS.map((name) => structText(btf, name)),
	].join("\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(OUTPUT, generate());
