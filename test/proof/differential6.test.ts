import { differential6 } from "./differential.js";
import { testProof } from "./proof.js";

testProof(differential6);
