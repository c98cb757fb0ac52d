import { policy } from "./policy.js";
import { testProof } from "./proof.js";

testProof(policy);
