// Spoofing and injection, in the small size.
import { testProof } from "./proof.js";
import { spoofing } from "./spoofing.js";

testProof(spoofing);
