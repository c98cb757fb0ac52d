// The kernel takes the programs in every variant, and what that costs its verifier does not grow unseen.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Datapath, destroy } from "../../src/datapath/datapath.js";
import { verifiedInstructions } from "../../src/datapath/program.js";
import { ensureBpffs } from "../../src/kernel/bpffs.js";
import { loadConntrack } from "../../src/kernel/conntrack.js";

/** Instructions by variant and program; npm run test:kernels -- --record writes them. */
type Counts = Record<string, Record<string, number>>;

const RECORDED = fileURLToPath(new URL("../../../docs/results/verifier.json", import.meta.url));
const GROWTH = 1.2;
const [series = ""] = /^\d+\.\d+/.exec(release()) ?? [];
const bpffs = `/sys/fs/bpf/oct-verifier-${process.pid}`;
const counts: Counts = {};

loadConntrack();

describe("the verifier takes every program", () => {
	after(() => destroy(bpffs));
	for (const markMode of ["metadata", "dscp"] as const)
		for (const countFlows of [false, true]) {
			const variant = `${markMode}${countFlows ? ", counting flows" : ""}`;
			test(`${variant} mode`, () => {
				ensureBpffs(bpffs);
				const datapath = Datapath.open({
					...{ bpffs, markMode, countFlows },
					...{ attach: "tcx", mark: 0x1000, maxStalenessMs: 2000 },
					sizes: { filter: 1024, egress: 64, ingress: 64 },
				});
				const programs = ["egress", "egress_init", "ingress", "ingress_init", "forget"] as const;
				counts[variant] = Object.fromEntries(
					programs.map((name) => [name, verifiedInstructions(datapath.programFd(name))]),
				);
				datapath.close();
				for (const count of Object.values(counts[variant])) assert.ok(count > 0);
			});
		}
});

test("and goes through no more than a fifth more instructions than recorded", (t) => {
	const file = process.env.ONCACHE_RECORD;
	if (file) writeFileSync(file, JSON.stringify({ [series]: counts }));
	if (file) return t.skip(`recorded for Linux ${series}`);
	const recorded = (JSON.parse(readFileSync(RECORDED, "utf8")) as Record<string, Counts>)[series];
	if (!recorded) return t.skip(`no counts are recorded for Linux ${series}`);
	const grown = Object.entries(counts).flatMap(([variant, programs]) =>
		Object.entries(programs).flatMap(([program, count]) => {
			const before = recorded[variant]?.[program] ?? 0;
			return count > before * GROWTH ? [`${program} in ${variant} mode: ${before} -> ${count}`] : [];
		}),
	);
	assert.deepEqual(grown, [], "if it must be, record them anew: npm run test:kernels -- --record");
});
