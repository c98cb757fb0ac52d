// BPF_PROG_TEST_RUN: one packet through one program, without a wire.
import koffi from "koffi";
import { check, libbpf } from "./libbpf.js";

/** Fields of struct __sk_buff that a test may set; offsets of include/uapi/linux/bpf.h. */
export interface TestContext {
	mark?: number;
	ingressIfindex?: number;
	ifindex?: number;
	gsoSegs?: number;
	gsoSize?: number;
	/** Runs in a row; only then is `durationNs` worth something. */
	repeat?: number;
}

export interface TestResult {
	/** -1 TCX_NEXT, 2 drop, 7 redirect. */
	verdict: number;
	packet: Buffer;
	mark: number;
	/** Mean of one run. */
	durationNs: number;
}

const CONTEXT_BYTES = 192;
const HEADROOM_BYTES = 512;

export function runProgram(programFd: number, packet: Uint8Array, context: TestContext = {}): TestResult {
	const contextIn = Buffer.alloc(CONTEXT_BYTES);
	contextIn.writeUInt32LE(context.mark ?? 0, 8);
	contextIn.writeUInt32LE(context.ingressIfindex ?? 0, 36);
	contextIn.writeUInt32LE(context.ifindex ?? 0, 40);
	contextIn.writeUInt32LE(context.gsoSegs ?? 0, 164);
	contextIn.writeUInt32LE(context.gsoSize ?? 0, 176);
	const contextOut = Buffer.alloc(CONTEXT_BYTES);
	const out = Buffer.alloc(packet.length + HEADROOM_BYTES);
	const options = {
		sz: koffi.sizeof("bpf_test_run_opts"),
		data_in: packet,
		data_out: out,
		data_size_in: packet.length,
		data_size_out: out.length,
		ctx_in: contextIn,
		ctx_out: contextOut,
		ctx_size_in: CONTEXT_BYTES,
		ctx_size_out: CONTEXT_BYTES,
		repeat: context.repeat ?? 1,
		retval: 0,
		duration: 0,
	};
	check(libbpf.testRun(programFd, options), "Cannot run the program on a test packet");
	return {
		verdict: options.retval | 0,
		packet: out.subarray(0, options.data_size_out),
		mark: contextOut.readUInt32LE(8),
		durationNs: options.duration,
	};
}
