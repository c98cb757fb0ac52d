// What the kernel tells about a loaded program.
import { objectInfo } from "./libbpf.js";

/** Of struct bpf_prog_info in include/uapi/linux/bpf.h (Linux 5.16). */
const VERIFIED_INSTRUCTIONS = 216;

/** How many instructions the verifier went through; it refuses at a million. */
export function verifiedInstructions(programFd: number): number {
	const info = objectInfo(programFd, VERIFIED_INSTRUCTIONS + 4, "Cannot ask about a program");
	return info.readUInt32LE(VERIFIED_INSTRUCTIONS);
}
