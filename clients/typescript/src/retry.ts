import { OutboxError } from "./errors.js";

/** How long to wait between two tries of one request, and how long one try may take. */
export interface RetryPolicy {
  /** The longest delay after one failure, 250 by default. Each further failure doubles it. */
  readonly firstDelayMs: number;
  /** The longest delay after any number of failures, 30,000 by default. */
  readonly maxDelayMs: number;
  /** How long one try may take, 30,000 by default; an upload longer by the size of its file. */
  readonly requestTimeoutMs: number;
}

export const DEFAULT_RETRY_POLICY: RetryPolicy = {
  firstDelayMs: 250,
  maxDelayMs: 30_000,
  requestTimeoutMs: 30_000,
};

/**
 * The delay after `failures` failures in a row, the last of which is `error`.
 * It is random up to an exponential limit, and never shorter than the answer's Retry-After.
 */
export function delayMs(policy: RetryPolicy, failures: number, error: unknown): number {
  const limit = Math.min(policy.maxDelayMs, policy.firstDelayMs * 2 ** (failures - 1));
  const asked = error instanceof OutboxError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
  return asked + Math.random() * limit;
}

/** Waits `ms` milliseconds, less when `wake` is called or `signal` aborts. */
export function pause(
  ms: number,
  signal?: AbortSignal,
  onWake?: (wake: () => void) => void,
): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    if (signal?.aborted) return end();
    signal?.addEventListener("abort", end);
    onWake?.(end);
  });
}
