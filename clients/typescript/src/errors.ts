import type { ErrorCode } from "./api.js";

/** `http_` and the status stand for an answer that is not in the service's form, such as a proxy's. */
export type RefusalCode = ErrorCode | `http_${number}`;

/** The service answered and refused the request. */
export class OutboxError extends Error {
  override readonly name = "OutboxError";

  /**
   * `retryAfterSeconds` is the answer's Retry-After, undefined without one.
   * `queuedAs` is the key of a refused event that stays in the queue. Each `flush` tries it again,
   * so it is sent after the next sign-in.
   */
  constructor(
    readonly status: number,
    readonly code: RefusalCode,
    message: string,
    readonly requestId?: string,
    readonly retryAfterSeconds?: number,
    readonly queuedAs?: string,
  ) {
    super(message);
  }

  /** The same refusal, of an event that stays in the queue under `key`. */
  keptAs(key: string): OutboxError {
    return new OutboxError(
      this.status,
      this.code,
      this.message,
      this.requestId,
      this.retryAfterSeconds,
      key,
    );
  }
}

/** No answer came: the network or the service is away. */
export class OutboxConnectionError extends Error {
  override readonly name = "OutboxConnectionError";
}

const TRANSIENT_STATUS = new Set([408, 425, 429, 500, 502, 503, 504]);
const NEEDS_CONFIGURATION = "storage_not_configured";

/** True when the same request may succeed later without anybody changing it. */
export function isTransient(error: unknown): boolean {
  if (error instanceof OutboxConnectionError) return true;
  return (
    error instanceof OutboxError &&
    TRANSIENT_STATUS.has(error.status) &&
    error.code !== NEEDS_CONFIGURATION
  );
}

/** True when a refused event stays in the queue: a sign-in or a mended proxy lets it through. */
export function staysQueued(error: unknown): error is OutboxError {
  return (
    error instanceof OutboxError && (error.status === 401 || error.code.startsWith("http_"))
  );
}
