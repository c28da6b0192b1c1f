// The page's beginning: its tabs, and the model that is served.

import { ask, pause } from "./api.js";
import { openDrift, redrawDrift, startDrift } from "./drift/drift.js";
import { by } from "./elements.js";
import { describeFile, startFile } from "./file/file.js";
import { startKey } from "./key.js";
import { showModel } from "./model.js";
import { showTable, startPredict } from "./predict/predict.js";
import { schema } from "./schema.js";
import { count, sentence } from "./words.js";

const LONGEST_WAIT_SECONDS = 10;
const tabs = [...document.querySelectorAll("[role=tab]")];
// Of the model whose card is shown.
let version = null, asking = null;
const nameOf = (tab) => tab.id.replace("tab-", "");

function select(name, focus = false) {
  const chosen = tabs.find((tab) => nameOf(tab) === name) ?? tabs[0];
  for (const tab of tabs) {
    const on = tab === chosen;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    by(`panel-${nameOf(tab)}`).hidden = !on;
  }
  document.title = nameOf(chosen) === "predict" ? "Evenkeel" : `${chosen.textContent} · Evenkeel`;
  openDrift(nameOf(chosen) === "drift");
  if (focus) chosen.focus();
}

function startTabs() {
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => go(nameOf(tab)));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      go(nameOf(tabs[(to + tabs.length) % tabs.length]), true);
    });
  });
  window.addEventListener("hashchange", () => select(location.hash.slice(1)));
  select(location.hash.slice(1));
}

// Choosing a tab does not fill the history: going back leaves the page.
function go(name, focus = false) {
  history.replaceState(null, "", `#${name}`);
  select(name, focus);
}

// Show the model's card, once the service is there.
async function showServed() {
  asking?.abort();
  const { signal } = asking = new AbortController();
  for (let wait = 1; ; wait = Math.min(2 * wait, LONGEST_WAIT_SECONDS)) {
    try {
      show(await ask("v1/model", undefined, signal));
      return;
    } catch (error) {
      if (error.name === "AbortError") return;
      by("served").textContent = error.message ?? "";
      if (by("row-form").hidden && error.message) by("predict-lead").textContent = `${sentence(error.message)}.`;
      if (!error.passing) throw error;
      await pause(error.retryAfterSeconds ?? wait, signal).catch(() => {});
    }
  }
}

function show(model) {
  const { rows, classes } = model.manifest.origin.data, { label } = model.schema, positive = label.classes.at(-1).name;
  version = model.version;
  by("served").textContent = `${model.name} ${model.version}`;
  showTable(model.schema, classes[positive] / rows);
  by("about").textContent = `The model was trained on ${count(rows)} ${schema.rows}, and its probabilities are true of others like them.`;
  describeFile();
  redrawDrift();
  showModel(model);
}

startKey();
startDrift((alarmed) => by("tab-drift").classList.toggle("alarmed", alarmed));
startTabs();
startPredict();
startFile();
document.addEventListener("answered", ({ detail }) => {
  if (version !== null && detail !== version) { version = null; showServed(); }
});
document.addEventListener("keyed", showServed);
showServed();
