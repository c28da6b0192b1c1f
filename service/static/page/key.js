// The API key, where the service asks for one: held by this tab until it is closed, and sent in a header alone.

import { by } from "./elements.js";

const STORED = "evenkeel-key";
const form = by("key-form"), input = by("key"), note = by("key-note"), forget = by("key-forget");
let key = stored();
const waiting = new Set();

export function startKey() {
  form.addEventListener("submit", (event) => { event.preventDefault(); take(input.value.trim()); });
  forget.addEventListener("click", () => change(""));
}

// fetch with the key. A request that is refused for want of one waits until there is another key, and is then sent again.
export async function fetchWithKey(path, { headers, ...options } = {}) {
  for (;;) {
    const used = key;
    const response = await fetch(path, { ...options, headers: used ? { ...headers, Authorization: `Bearer ${used}` } : headers });
    if (response.status !== 401) {
      if (used === key && (used || response.ok)) accepted();
      return response;
    }
    response.body?.cancel();
    if (used === key) await another(used, options.signal);
  }
}

// Ask for a key; resolves when one was given, or fails as `signal` says.
function another(refused, signal) {
  note.textContent = refused ? "The service does not accept this key: it is mistyped, revoked or expired." : "";
  input.toggleAttribute("aria-invalid", false);
  if (refused) input.setAttribute("aria-invalid", "true");
  forget.hidden = true;
  if (form.hidden) {
    form.hidden = false;
    // Whoever is typing elsewhere goes on.
    if (document.activeElement === document.body) input.focus();
  }
  return new Promise((done, failed) => {
    waiting.add(done);
    signal?.addEventListener("abort", () => { waiting.delete(done); failed(signal.reason); }, { once: true });
  });
}

function take(typed) {
  if (/^[\x21-\x7e]+$/.test(typed)) change(typed);
  else {
    note.textContent = "A key is ek_, letters and digits, without spaces in it.";
    input.setAttribute("aria-invalid", "true");
  }
}

function change(other) {
  key = other;
  try {
    if (key) sessionStorage.setItem(STORED, key);
    else sessionStorage.removeItem(STORED);
  } catch { /* A browser that keeps nothing asks again after a reload. */ }
  const asked = [...waiting];
  waiting.clear();
  for (const again of asked) again();
  // What another key was refused, or was given, is asked for anew.
  document.dispatchEvent(new CustomEvent("keyed"));
}

function accepted() {
  // A request that was refused since waits for another key, whatever an answer says that was asked for before.
  if (waiting.size) return;
  forget.hidden = !key;
  if (form.hidden) return;
  const inside = form.contains(document.activeElement);
  form.hidden = true;
  input.value = note.textContent = "";
  if (inside) document.querySelector("[role=tab][aria-selected=true]").focus();
}

function stored() {
  try { return sessionStorage.getItem(STORED) ?? ""; } catch { return ""; }
}
