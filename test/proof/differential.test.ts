import { differential } from "./differential.js";
import { testProof } from "./proof.js";

testProof(differential);
