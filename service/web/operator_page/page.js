"use strict";
const live = document.getElementById("live");
const delivery = document.getElementById("delivery");
const state = document.getElementById("connection");
const source = new EventSource("/outbox/live");
source.addEventListener("figures", (message) => { live.innerHTML = message.data; });
source.addEventListener("delivery", (message) => {
  if (delivery.textContent !== message.data) delivery.textContent = message.data;
});
source.addEventListener("dead", (message) => {
  const shown = document.getElementById("dead").dataset.count;
  document.getElementById("stale").hidden = message.data === shown;
});
source.onopen = () => { state.textContent = "Live."; };
source.onerror = () => { state.textContent = "Not live: trying to reach the service."; };
