// Compares the results of a suite, check by check, with its baseline: the suite itself compares whole scenarios, and
// would take a new failure in one that is listed for the one that is known.
//
//   node judge.mjs RESULTS BASELINE
//
// A line `- SCENARIO # CHECK...` names the checks of a scenario that may fail; without them it is the one that has the
// scenario's own name.
import { readdirSync, readFileSync } from "node:fs";

const [results, baseline] = process.argv.slice(2);
const known = new Map();
for (const line of readFileSync(baseline, "utf8").split("\n")) {
  const [, scenario, checks] = line.match(/^ +- (\S+)(?: # (.*))?$/) ?? [];
  if (scenario) known.set(scenario, new Set(checks?.split(" ") ?? [scenario]));
}

const seen = new Set();
const count = { passed: 0, known: 0, wrong: 0 };
for (const folder of readdirSync(results)) {
  // The name is server-SCENARIO-TIME.
  const [, scenario] = folder.match(/^(?:server-)?(.*)-\d{4}-\d\d-\d\dT.*$/);
  for (const check of JSON.parse(readFileSync(`${results}/${folder}/checks.json`, "utf8"))) {
    if (!["FAILURE", "WARNING"].includes(check.status)) {
      count.passed += check.status === "SUCCESS";
    } else if (known.get(scenario)?.has(check.id)) {
      count.known += 1;
      seen.add(`${scenario} ${check.id}`);
    } else {
      count.wrong += 1;
      console.log(`${check.status} ${scenario}: ${check.id}: ${check.errorMessage}`);
    }
  }
}
for (const [scenario, checks] of known) {
  for (const check of checks) {
    if (seen.has(`${scenario} ${check}`)) continue;
    count.wrong += 1;
    console.log(`LISTED, but does not fail: ${scenario}: ${check}`);
  }
}
const scenarios = readdirSync(results).length;
console.log(`${scenarios - known.size} of ${scenarios} scenarios pass whole; ${count.passed} checks pass, ${count.known} fail as listed`);
process.exitCode = count.wrong > 0 ? 1 : 0;
