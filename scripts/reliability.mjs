// Writes what proofs have shown into docs/RELIABILITY.md and docs/results/reliability.json:
//   npm run prove -- chaos --json results/chaos.json ...
//   node scripts/reliability.mjs results/*.json
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const RAW = fileURLToPath(new URL("../docs/results/reliability.json", import.meta.url));
const DOC = fileURLToPath(new URL("../docs/RELIABILITY.md", import.meta.url));

const known = JSON.parse(readFileSync(RAW, "utf8"));
for (const file of process.argv.slice(2)) {
	const { startedWith, machine, seed, results } = JSON.parse(readFileSync(file, "utf8"));
	const command = startedWith.filter((word, at) => word !== "--json" && startedWith[at - 1] !== "--json");
	for (const [name, result] of Object.entries(results))
		known.proofs[name] = { startedWith: command, machine, seed, ...result };
}
writeFileSync(RAW, `${JSON.stringify(known, null, "\t")}\n`);

let text = readFileSync(DOC, "utf8");
for (const [name, result] of Object.entries(known.proofs)) {
	// From the command, or the place that is kept for it, to the next heading.
	const block = new RegExp(`(\`npm run prove -- ${name}\\b[^\\n]*|MISSING ${name})\\n[\\s\\S]*?(?=\\n##+ )`);
	if (!block.test(text))
		throw new Error(`Cannot write proof "${name}": "${DOC}" has neither its command nor "MISSING ${name}"`);
	text = text.replace(block, () => blockOf(name, result));
}
writeFileSync(DOC, text);

function blockOf(name, { startedWith, amount, unit, seconds, figures, failures }) {
	const rest = startedWith.slice(startedWith.indexOf(name) + 1).join(" ");
	const command = `npm run prove -- ${name}${rest === "" ? "" : ` ${rest}`}`;
	const verdict = failures.length === 0 ? "Holds" : "BROKEN";
	const rows = Object.entries(figures).map(([key, value]) => `| ${key} | ${grouped(value).replaceAll("|", "\\|")} |`);
	return [
		`\`${command}\`: ${grouped(amount)} ${unit}, ${Math.round(seconds)} s. **${verdict}.**`,
		"",
		"| | |",
		"|---|---|",
		...rows,
		"",
	].join("\n");
}

function grouped(value) {
	return typeof value === "number" && Number.isInteger(value) ? value.toLocaleString("en-US") : String(value);
}
