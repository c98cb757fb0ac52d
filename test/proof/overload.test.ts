import { overload } from "./overload.js";
import { testProof } from "./proof.js";

testProof(overload);
