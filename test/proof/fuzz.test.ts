import { fuzz } from "./fuzz.js";
import { testProof } from "./proof.js";

testProof(fuzz);
