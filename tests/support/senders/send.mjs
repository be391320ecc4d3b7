// Sends events with Inngest's own client, several at a time, and prints what became of each.
import { Inngest } from "inngest";

const [count, atOnce] = process.argv.slice(2).map(Number);
const inngest = new Inngest({ id: "sender" });
let next = 0;

async function sendSome() {
  while (next < count) {
    const n = next++;
    const began = Date.now() / 1000;
    const line = { n, began };
    try {
      line.ids = (await inngest.send({ name: "sdk/javascript", data: { n } })).ids;
    } catch (error) {
      line.error = String(error);
    }
    console.log(JSON.stringify({ ...line, ended: Date.now() / 1000 }));
  }
}

await Promise.all(Array.from({ length: atOnce }, sendSome));
