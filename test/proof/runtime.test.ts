import { testProof } from "./proof.js";
import { runtime } from "./runtime.js";

testProof(runtime);
