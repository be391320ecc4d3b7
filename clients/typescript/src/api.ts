/** The code of a refusal, in the service's words. */
export type ErrorCode =
  | "bad_request"
  | "body_timeout"
  | "body_too_large"
  | "content_encoding_refused"
  | "cross_site_request"
  | "document_name_invalid"
  | "document_name_required"
  | "document_not_found"
  | "event_key_required"
  | "event_left"
  | "expectation_failed"
  | "headers_timeout"
  | "headers_too_large"
  | "idempotency_key_invalid"
  | "idempotency_key_reused"
  | "internal_error"
  | "invalid_field"
  | "invalid_json"
  | "json_required"
  | "method_not_allowed"
  | "metrics_token_required"
  | "not_found"
  | "operator_required"
  | "outbox_full"
  | "outbox_unavailable"
  | "provider_unavailable"
  | "rate_limited"
  | "sender_not_allowed"
  | "session_required"
  | "sign_in_failed"
  | "storage_not_configured"
  | "storage_unavailable"
  | "too_many_pending";

/**
 * One run of a function. Times are milliseconds since 1970. `output` is its result, or `name` and
 * `message` of its error. `url` is its page at Inngest.
 */
export interface Run {
  id: string;
  function: string;
  status: "cancelled" | "completed" | "failed" | "queued" | "running";
  startedAt: number | null;
  endedAt: number | null;
  output: unknown;
  url: string | null;
}

/** An event. Fields of later states are null. */
export interface EventView {
  id: string;
  /** The id under which Inngest has the event. */
  inngestId: string | null;
  name: string;
  state: "dead" | "delivered" | "delivering" | "pending" | "sent";
  /** Its delivery, and the failures that it caused. An outage adds none. */
  attempts: number;
  acceptedAt: number;
  deliveredAt: number | null;
  /** Why the event is dead: a code, then Inngest's words. */
  reason: string | null;
  run: Run | null;
  otherRuns: Run[];
  /** Nothing more is expected: the event is dead, its runs have ended, or it starts none. */
  final: boolean;
  /** Inngest has held the event for `OUTBOX_NO_RUN_AFTER`, and runs nothing for it. */
  noRun: boolean;
  /** The reason of `noRun`: Inngest held another event with this id, and runs an id once. */
  idUsed: boolean;
}

/** An event that is dead, whose runs have ended, or that starts no function (`noRun`). */
export type FinalEvent = EventView & { final: true } & ({ noRun: false } | { noRun: true; run: null });

export interface EventPage {
  events: EventView[];
  /** For the next page; null on the last one. */
  nextCursor: string | null;
}

export interface ListOptions {
  state?: EventView["state"];
  name?: string;
  /** Only events accepted then or later: milliseconds since 1970. */
  since?: number;
  /** At most 100. */
  limit?: number;
  cursor?: string;
}

/** A signed form. The file goes into its last field, which is named `file`. */
export interface UploadAnswer {
  documentName: string;
  upload: { method: "POST"; url: string; fields: Record<string, string> };
}

interface Posted<Body, Answer> {
  post: {
    requestBody: { content: { "application/json": Body } };
    responses: { 200: { content: { "application/json": Answer } } };
  };
}

/** The answer to one event of a user. */
export interface AcceptedEvent {
  eventId: string;
}

/** The answer to the events of a machine, in their order. */
export interface AcceptedEvents {
  eventIds: readonly string[];
}

interface MachineEvent {
  name: string;
  data?: Record<string, unknown> | null;
  id?: string | null;
  /** Milliseconds since 1970. */
  ts?: number | null;
  user?: Record<string, unknown> | null;
  v?: string | null;
}

/** The paths of a service without event types of its own. */
export interface DefaultPaths {
  "/api/route": Posted<{ documentName: string; sendAt?: number | null }, AcceptedEvent>;
  "/api/events": Posted<MachineEvent, AcceptedEvents>;
}

/** The path that takes several events in one request. */
export const MACHINE_PATH = "/api/events";

type Body<Item> = Item extends Posted<infer Sent, AcceptedEvent | AcceptedEvents>
  ? Exclude<Sent, readonly unknown[]>
  : never;

/** The paths of `Paths` that take an event. */
export type EventPath<Paths> = {
  [Path in keyof Paths & string]: [Body<Paths[Path]>] extends [never] ? never : Path;
}[keyof Paths & string];

/** The body of one event that is posted to `Path`. */
export type EventBody<Paths, Path extends keyof Paths> = Body<Paths[Path]>;

/** Where `submit` posts without a `path`. */
export type DefaultPath<Paths> = Extract<EventPath<Paths>, "/api/route">;
