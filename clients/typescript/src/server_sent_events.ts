/** No server-sent event and no comment came for this long: the connection is dead. */
const SILENCE_MS = 45_000;

/** The `data` of each server-sent event of a response. Ends with the response. */
export async function* serverSentData(
  answer: Response,
  silenceMs = SILENCE_MS,
): AsyncGenerator<string> {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await within(silenceMs, reader.read());
      if (done) return;
      const blocks = (text + value.replaceAll("\r\n", "\n")).split("\n\n");
      text = blocks.pop() ?? "";
      yield* blocks.map(dataOf).filter((data) => data !== "");
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function dataOf(block: string): string {
  const lines = block.split("\n").filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(line.startsWith("data: ") ? 6 : 5)).join("\n");
}

function within<T>(ms: number, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new TypeError(`Silent for ${ms} ms.`)), ms);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
