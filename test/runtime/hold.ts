// `hold.js LAB` runs a pod on the first host of a lab that is up, says "holding", and stays until it is killed: what is left then?
import { startContainerd } from "../../src/lab/containerd.js";
import { readLab } from "../../src/lab/lab.js";
import type { LabHost } from "../../src/lab/topology.js";
import { Cri } from "./cri.js";

const lab = readLab(process.argv[2] ?? "");
if (!lab) throw new Error(`There is no lab "${process.argv[2]}"`);
const cri = await Cri.connect(await startContainerd(lab.hosts[0] as LabHost, lab));
await cri.runPod({ name: "held" });
console.log("holding");
setInterval(() => {}, 60_000);
