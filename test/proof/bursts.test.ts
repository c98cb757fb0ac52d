import { bursts } from "./bursts.js";
import { testProof } from "./proof.js";

testProof(bursts);
