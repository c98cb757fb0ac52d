import { connections } from "./connections.js";
import { testProof } from "./proof.js";

testProof(connections);
