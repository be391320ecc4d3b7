import type { UploadAnswer } from "./api.js";
import { isTransient, OutboxConnectionError, OutboxError } from "./errors.js";
import { delayMs, pause, type RetryPolicy } from "./retry.js";
import { limited, type Transport } from "./transport.js";

/** An uploaded document. `documentName` is what POST /api/route takes. */
export interface UploadedDocument {
  readonly documentName: string;
}

export interface UploadOptions {
  /** The name of the document; the file's own name without it. */
  readonly name?: string;
  readonly signal?: AbortSignal;
}

const TRIES = 5;
/** 32 kB a second, less than a slow mobile network sends: a bucket that takes less hangs. */
const LEAST_BYTES_PER_MS = 32;
const UNTYPED = "application/octet-stream";

/** Uploads files straight to the bucket, with a form that the service signs. */
export class Uploads {
  constructor(
    private readonly transport: Transport,
    private readonly fetch: typeof globalThis.fetch,
    private readonly policy: RetryPolicy,
  ) {}

  /**
   * Uploads one file. Tries up to five times, each time with a newly signed form. A try may take
   * `requestTimeoutMs`, and a second for each 32 kB of the file.
   * Throws OutboxError when the service refuses it, OutboxConnectionError when the bucket does.
   */
  async upload(file: Blob, options: UploadOptions = {}): Promise<UploadedDocument> {
    const documentName = options.name ?? (file instanceof File ? file.name : undefined);
    if (!documentName) throw new TypeError("A document without a file name needs options.name.");
    for (let failures = 1; ; failures += 1) {
      try {
        return await this.tryOnce(file, documentName, options.signal);
      } catch (error) {
        if (!isTransient(error) || isUnsigned(error) || failures === TRIES) throw error;
        await pause(delayMs(this.policy, failures, error), options.signal);
      }
    }
  }

  private async tryOnce(
    file: Blob,
    documentName: string,
    signal?: AbortSignal,
  ): Promise<UploadedDocument> {
    const contentType = file.type || UNTYPED;
    const { body: signed } = await this.transport.send<UploadAnswer>({
      method: "POST",
      path: "/api/uploads",
      body: JSON.stringify({ documentName, contentType, size: file.size }),
      timeoutMs: this.policy.requestTimeoutMs,
      signal,
    });
    await this.store(signed.upload, file, signal);
    return { documentName: signed.documentName };
  }

  private async store(
    form: UploadAnswer["upload"],
    file: Blob,
    signal?: AbortSignal,
  ): Promise<void> {
    const body = new FormData();
    for (const [name, value] of Object.entries(form.fields)) body.append(name, value);
    body.append("file", file);
    const timeoutMs = this.policy.requestTimeoutMs + Math.ceil(file.size / LEAST_BYTES_PER_MS);
    const sent = { method: form.method, body, signal: limited(signal, timeoutMs) };
    const answer = await this.fetch(form.url, sent).catch((cause: unknown) => {
      signal?.throwIfAborted();
      throw new OutboxConnectionError("The document storage can't be reached.", { cause });
    });
    if (!answer.ok) {
      throw new OutboxConnectionError(`The document storage answered ${answer.status}.`);
    }
  }
}

/** True when the service can't sign: it asks nobody for that, so its credentials are missing. */
function isUnsigned(error: unknown): boolean {
  return error instanceof OutboxError && error.code === "storage_unavailable";
}
