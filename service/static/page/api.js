// Requests to the service; addresses are relative, so the page works under any prefix.

import { fetchWithKey } from "./key.js";

const PATIENCE_SECONDS = 60;

// What the service refused, or that it could not be reached (status 0). `faults` are those of the body.
export class Refusal extends Error {
  constructor(status, detail, faults = [], retryAfterSeconds = null) {
    super(detail);
    Object.assign(this, { status, faults, retryAfterSeconds });
  }

  // Whether the same request may be answered later.
  get passing() { return [0, 429, 503, 504].includes(this.status); }
}

// The JSON answer of GET, or of POST where there is a body; throws Refusal, or AbortError when `signal` says so.
// Where a key is needed it waits for one.
export async function ask(path, body, signal) {
  let response;
  try {
    response = await fetchWithKey(path, body === undefined ? { signal } : {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "the service cannot be reached");
  }
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({}));
  const wait = Number.parseFloat(response.headers.get("Retry-After"));
  throw new Refusal(response.status, problem.detail ?? response.statusText, problem.errors ?? [],
    Number.isFinite(wait) ? Math.min(wait, PATIENCE_SECONDS) : null);
}

// A pause that ends with AbortError when `signal` says so.
export function pause(seconds, signal) {
  return new Promise((done, failed) => {
    const timer = setTimeout(done, seconds * 1000);
    signal?.addEventListener("abort", () => { clearTimeout(timer); failed(signal.reason); }, { once: true });
  });
}
