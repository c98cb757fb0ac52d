import { planted } from "./planted.js";
import { testProof } from "./proof.js";

testProof(planted);
