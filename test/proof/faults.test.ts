import { faults } from "./faults.js";
import { testProof } from "./proof.js";

testProof(faults);
