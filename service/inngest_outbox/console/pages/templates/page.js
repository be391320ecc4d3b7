"use strict";
const find = (id) => document.getElementById(id);

// Times: exact ones in UTC or the browser's zone, and how long ago they were.
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
let isLocal = false;
try { isLocal = localStorage.getItem("outbox-zone") === "local"; } catch { /* no storage, no memory */ }

function exact(at) {
  const shift = isLocal ? new Date(at).getTimezoneOffset() * 60000 : 0;
  return new Date(at - shift).toISOString().slice(0, 19).replace("T", " ") + (isLocal ? "" : " UTC");
}

function ago(at) {
  const seconds = Math.round((Date.now() - at) / 1000);
  const [size, unit] = UNITS.find(([size]) => Math.abs(seconds) >= size) || [1, "s"];
  const count = Math.floor(Math.abs(seconds) / size);
  return seconds < 0 ? `in ${count} ${unit}` : count ? `${count} ${unit} ago` : "now";
}

function showTimes() {
  for (const one of document.querySelectorAll("time")) {
    const at = Date.parse(one.dateTime), isAgo = one.classList.contains("ago");
    one.textContent = isAgo ? ago(at) : exact(at);
    one.title = isAgo ? exact(at) : ago(at);
  }
  for (const tick of document.querySelectorAll("text[data-at]")) {
    tick.textContent = exact(Number(tick.dataset.at)).slice(11, 16);
  }
}

function showZone() {
  find("zone").hidden = false;
  find("zone").textContent = isLocal ? "Local time" : "UTC";
  find("zone").setAttribute("aria-label", `Times are ${isLocal ? "local" : "in UTC"}. Change`);
  showTimes();
}

find("zone").addEventListener("click", () => {
  isLocal = !isLocal;
  try { localStorage.setItem("outbox-zone", isLocal ? "local" : "utc"); } catch { /* as above */ }
  showZone();
});
showZone();
setInterval(showTimes, 10000);

// A button beside what people copy.
async function copy(text, place) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  getSelection().selectAllChildren(place);
  document.execCommand("copy");
  getSelection().removeAllRanges();
}

function offerCopy(place) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "copy", textContent: "Copy" });
  button.setAttribute("aria-label", `Copy ${place.tagName === "PRE" ? "the payload" : place.textContent}`);
  button.addEventListener("click", async () => {
    await copy(place.textContent, place);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  place.after(button);
}

document.querySelectorAll("[data-copy], .rows a.id").forEach(offerCopy);

// The figures, as they change. Only texts are replaced, so that nothing loses the focus.
function showFigures(figures) {
  for (const [key, text] of Object.entries(figures)) {
    const place = document.querySelector(`[data-figure="${key}"]`);
    if (place && place.textContent !== text) place.textContent = text;
    if (key === "dead") place.parentElement.classList.toggle("alarming", text !== "0");
  }
}

function showDelivery(words) {
  if (find("delivery").textContent !== words) find("delivery").textContent = words;
}

// The state in colours, at the top and beside the words. No screen reader is told of these.
function showState(state) {
  const pill = document.querySelector("header .pill");
  pill.className = `pill delivery-${state}`;
  pill.textContent = state.replace("_", " ");
  document.querySelector(".now").className = `card now delivery-${state}`;
}

// A list under somebody's hands stays as it is.
let dead = "";
function showDead(html) {
  const isInUse = find("dead").contains(document.activeElement) || find("dead").matches(":hover");
  if (isInUse) {
    find("stale").hidden = !dead || dead === html;
    return;
  }
  find("stale").hidden = true;
  find("dead").innerHTML = dead = html;
  showTimes();
}

function follow() {
  const source = new EventSource("/outbox/live" + location.search);
  source.addEventListener("figures", (message) => showFigures(JSON.parse(message.data)));
  source.addEventListener("delivery", (message) => showDelivery(message.data));
  source.addEventListener("state", (message) => showState(message.data));
  source.addEventListener("charts", (message) => { find("charts").innerHTML = message.data; showTimes(); });
  source.addEventListener("dead", (message) => showDead(message.data));
  source.onopen = () => { find("connection").textContent = "Live."; };
  source.onerror = () => { find("connection").textContent = "Not live: trying to reach the service."; };
}

if (find("connection")) follow();

// One box selects all rows of the page. Without this script people tick each.
function selectAll(box) {
  for (const one of document.querySelectorAll('.rows input[name="event"]')) one.checked = box.checked;
}

if (find("all-rows")) {
  find("all-rows").hidden = false;
  find("all-rows").addEventListener("change", (event) => selectAll(event.target));
}
