import { churn } from "./churn.js";
import { testProof } from "./proof.js";

testProof(churn);
