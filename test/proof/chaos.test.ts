import { chaos } from "./chaos.js";
import { testProof } from "./proof.js";

testProof(chaos);
