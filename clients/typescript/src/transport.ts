import { OutboxConnectionError, OutboxError, type RefusalCode } from "./errors.js";

export interface TransportOptions {
  readonly baseUrl: string;
  readonly fetch: typeof fetch;
  readonly headers: () => HeadersInit | Promise<HeadersInit>;
  readonly credentials: RequestCredentials;
}

export interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly body?: string;
  readonly headers?: Record<string, string>;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** An answer whose body has been read; `body` is undefined where there is none. */
export interface Answer<Body> {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Body;
}

/**
 * One HTTP exchange with the service. It never retries.
 * Every method throws OutboxError for a refusal, OutboxConnectionError where no answer of the
 * service came, and the signal's reason when `signal` aborts.
 */
export class Transport {
  constructor(private readonly options: TransportOptions) {}

  /** Sends and reads a JSON answer. */
  async send<Body = unknown>(exchange: Exchange): Promise<Answer<Body>> {
    const answer = await this.open(exchange);
    const { status, headers } = answer;
    if (status === 204 || status === 304) return { status, headers, body: undefined as Body };
    try {
      return { status, headers, body: (await answer.json()) as Body };
    } catch (cause) {
      exchange.signal?.throwIfAborted();
      // A network's sign-in page (a captive portal) answers 200 too.
      throw new OutboxConnectionError("The answer is not the service's.", { cause });
    }
  }

  /** Sends and leaves the body of the answer to the caller. */
  async open(exchange: Exchange): Promise<Response> {
    const answer = await this.fetch(exchange);
    if (answer.status < 400) return answer;
    throw await refusal(answer);
  }

  private async fetch(exchange: Exchange): Promise<Response> {
    const { signal, timeoutMs } = exchange;
    const limit = limited(signal, timeoutMs);
    try {
      const headers = new Headers(await this.options.headers());
      for (const [name, value] of Object.entries(exchange.headers ?? {})) headers.set(name, value);
      if (exchange.body !== undefined) headers.set("content-type", "application/json");
      return await this.options.fetch(this.options.baseUrl + exchange.path, {
        method: exchange.method,
        headers,
        body: exchange.body ?? null,
        cache: "no-store",
        credentials: this.options.credentials,
        redirect: "error",
        signal: limit,
      });
    } catch (cause) {
      signal?.throwIfAborted();
      throw new OutboxConnectionError("The service can't be reached right now.", { cause });
    }
  }
}

/** Aborts with `signal`, and after `timeoutMs` if one is given. */
export function limited(signal?: AbortSignal, timeoutMs?: number): AbortSignal | null {
  if (!timeoutMs) return signal ?? null;
  return either(signal, AbortSignal.timeout(timeoutMs));
}

/** Aborts with `signal`, if there is one, and with `other`. */
export function either(signal: AbortSignal | undefined, other: AbortSignal): AbortSignal {
  return signal ? anyOf(signal, other) : other;
}

/** Aborts with either. Safari has `AbortSignal.any` since 17.4, Node since 20.3. */
function anyOf(one: AbortSignal, other: AbortSignal): AbortSignal {
  if (AbortSignal.any) return AbortSignal.any([one, other]);
  const either = new AbortController();
  const abort = (): void => either.abort();
  for (const signal of [one, other]) {
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { signal: either.signal });
  }
  return either.signal;
}

async function refusal(answer: Response): Promise<OutboxError> {
  const told: unknown = await answer.json().catch(() => null);
  const { code, error } = (told ?? {}) as { code?: unknown; error?: unknown };
  const seconds = Number(answer.headers.get("retry-after") ?? Number.NaN);
  return new OutboxError(
    answer.status,
    typeof code === "string" ? (code as RefusalCode) : `http_${answer.status}`,
    typeof error === "string" ? error : `The server answered ${answer.status}.`,
    answer.headers.get("x-request-id") ?? undefined,
    Number.isFinite(seconds) ? seconds : undefined,
  );
}
