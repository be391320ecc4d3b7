"use strict";
const find = (id) => document.getElementById(id);

// The figures, as they change. Only texts are replaced, so that nothing loses the focus.
function showFigures(figures) {
  for (const [key, text] of Object.entries(figures)) {
    const place = document.querySelector(`[data-figure="${key}"]`);
    if (place && place.textContent !== text) place.textContent = text;
  }
}

function showDelivery(words) {
  if (find("delivery").textContent !== words) find("delivery").textContent = words;
}

// The state in colours, at the top and beside the words. No screen reader is told of these.
function showState(state) {
  const pill = document.querySelector("header .pill");
  if (pill) {
    pill.className = `pill delivery-${state}`;
    pill.textContent = state.replace("_", " ");
  }
  document.querySelector(".now").className = `card now delivery-${state}`;
}

function follow() {
  const source = new EventSource("/outbox/live" + location.search);
  source.addEventListener("figures", (message) => showFigures(JSON.parse(message.data)));
  source.addEventListener("delivery", (message) => showDelivery(message.data));
  source.addEventListener("state", (message) => showState(message.data));
  source.addEventListener("charts", (message) => { find("charts").innerHTML = message.data; });
  source.addEventListener("dead", (message) => {
    find("stale").hidden = message.data === find("dead").dataset.count;
  });
  source.onopen = () => { find("connection").textContent = "Live."; };
  source.onerror = () => { find("connection").textContent = "Not live: trying to reach the service."; };
}

if (find("connection")) follow();

// One box selects all rows of the page. Without this script people tick each.
function selectAll(box) {
  for (const one of document.querySelectorAll('.choice input[name="event"]')) one.checked = box.checked;
}

if (find("all-rows")) {
  find("all-label").hidden = false;
  find("all-rows").addEventListener("change", (event) => selectAll(event.target));
}
