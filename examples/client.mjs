// A client of the HTTP API, with fetch alone: predictions, outcomes, explanation, drift, errors.
//
//   node examples/client.mjs                    (BASE=http://host:port for a service elsewhere; Node.js 18 or later)

const BASE = (process.env.BASE ?? "http://127.0.0.1:8000").replace(/\/+$/, "");
const CUMINGS = {
  pclass: 1, sex: "female", name: "Cumings, Mrs. John Bradley", age: 38, sibsp: 1, fare: 71.28,
  ticket: "PC 17599", cabin: "C85", embarked: "C",
};
const BRAUND = { pclass: 3, sex: "male", name: "Braund, Mr. Owen Harris", age: 22, sibsp: 1, fare: 7.25 };

// A problem (RFC 9457) that the service answered with.
class Refused extends Error {
  constructor(problem) {
    super(`${problem.status} ${problem.title}: ${problem.detail}`);
    this.problem = problem;
  }
}

// The answer to a request. A full queue or a service that still loads is asked again.
async function ask(path, body, retries = 3) {
  const response = await fetch(BASE + path, {
    method: body === undefined ? "GET" : "POST",
    headers: { accept: "application/json", ...(body !== undefined && { "content-type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(60_000),
  });
  if (response.ok) return response.json();
  if ([429, 503].includes(response.status) && retries > 0) {
    await response.body?.cancel();
    const seconds = Math.min(10, Number(response.headers.get("retry-after") ?? 1));
    await new Promise((done) => setTimeout(done, seconds * 1000));
    return ask(path, body, retries - 1);
  }
  throw new Refused(await response.json());
}

async function main() {
  const model = await ask("/v1/model");
  console.log(`${BASE} serves ${model.name} version ${model.version}`);

  const answer = await ask("/v1/predict", CUMINGS);
  const [low, high] = answer.confidence.interval;
  console.log(
    `predict: ${answer.outcome}, probability ${answer.probability.toFixed(3)}, interval ${low.toFixed(3)} to ${high.toFixed(3)}`,
  );

  const { predictions } = await ask("/v1/predict/batch", { rows: [CUMINGS, BRAUND] });
  console.log("batch: probability", predictions.map((one) => one.probability.toFixed(3)).join(", "));

  const explained = await ask("/v1/explain?method=shapley", CUMINGS);
  const signed = (number) => (number < 0 ? "" : "+") + number.toFixed(2);
  console.log(
    "explain:",
    explained.fields.slice(0, 4).map((one) => `${one.field} ${signed(one.contribution)}`).join(", "),
  );

  try {
    const outcomes = [
      { id: predictions[0].id, outcome: "survived" },
      { id: predictions[1].id, outcome: "died" },
    ];
    const result = await ask("/v1/outcomes", { outcomes });
    console.log(`outcomes: ${result.counted} counted, ${result.repeated} repeated, ${result.unknown.length} unknown`);
  } catch (error) {
    if (error.problem?.status !== 404) throw error;
    console.log("outcomes:", error.message);
  }

  console.log("drift:", (await ask("/v1/drift")).summary);

  const refused = await ask("/v1/predict", { pclass: 4, sex: "male", agee: 3 }).catch((error) => error);
  if (!(refused instanceof Refused)) throw new Error("a passenger of the fourth class was not refused");
  console.log(`errors: ${refused.message}`);
  for (const fault of refused.problem.errors) {
    console.log(`  ${fault.pointer} is ${fault.value}: ${fault.message}`);
  }
}

main().catch((error) => {
  console.error(`client.mjs: ${BASE}: ${error.message}${error.cause ? ` (${error.cause.code ?? error.cause})` : ""}`);
  process.exitCode = 1;
});
