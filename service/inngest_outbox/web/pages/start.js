const find = (id) => document.getElementById(id);
const say = (words) => {
  const line = document.createElement("li");
  line.textContent = words;
  find("log").append(line);
};
const example = () => {
  find("body").value = find("path").selectedOptions[0]?.dataset.example ?? "";
};
let stream;
const follow = (eventId) => {
  stream = new EventSource(`/api/events/${eventId}/stream`);
  stream.onmessage = (message) => {
    const event = JSON.parse(message.data);
    const run = event.run ? `, run ${event.run.status}` : "";
    say(`${event.state}${event.reason ? ` (${event.reason})` : ""}${run}`);
    if (event.final) {
      stream.close();
      say("That was its end.");
    }
  };
};
find("path").addEventListener("change", example);
let posting = false;
find("post").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  if (posting) return; // a double click posts one event
  posting = true;
  stream?.close();
  find("log").replaceChildren();
  try {
    const answer = await fetch(find("path").value, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: find("body").value,
    });
    const told = await answer.json();
    say(`${answer.status} ${JSON.stringify(told)}`);
    if (answer.ok) follow(told.eventId);
  } finally {
    posting = false;
  }
});
find("out").addEventListener("click", async () => {
  await fetch("/auth/logout", { method: "POST" });
  location.reload();
});
example();
