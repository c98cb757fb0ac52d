import { latency } from "./latency.js";
import { testProof } from "./proof.js";

testProof(latency);
