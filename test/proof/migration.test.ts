import { migration } from "./migration.js";
import { testProof } from "./proof.js";

testProof(migration);
