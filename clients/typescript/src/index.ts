export type {
  DefaultPaths,
  ErrorCode,
  EventBody,
  EventPage,
  EventPath,
  EventView,
  FinalEvent,
  ListOptions,
  Run,
} from "./api.js";
export { OutboxClient, type OutboxClientOptions } from "./client.js";
export { OutboxConnectionError, OutboxError, type RefusalCode } from "./errors.js";
export type { WaitOptions } from "./events.js";
export { indexedDbQueue, memoryQueue, type QueueEntry, type QueueStore, type Refusal } from "./queue.js";
export type { RetryPolicy } from "./retry.js";
export type { Accepted, SubmitOptions } from "./submissions.js";
export type { UploadedDocument, UploadOptions } from "./uploads.js";
