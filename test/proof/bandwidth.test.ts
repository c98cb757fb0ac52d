import { bandwidth } from "./bandwidth.js";
import { testProof } from "./proof.js";

testProof(bandwidth);
