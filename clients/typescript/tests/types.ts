// Compiled beside `outbox.d.ts`, the types of a service with examples/event-types/event-types.yaml.
import { expectTypeOf } from "expect-type";
import {
  type ErrorCode,
  type EventPage,
  type EventPath,
  type EventView,
  type ListOptions,
  OutboxClient,
  OutboxError,
  type Run,
} from "inngest-outbox-client";
import type * as client from "inngest-outbox-client";
import { outboxHooks, useSubmit } from "inngest-outbox-client/react";
import type { components, operations, paths } from "./outbox.js";

type Described = components["schemas"];
type Queried = NonNullable<operations["listEvents"]["parameters"]["query"]>;
type Own = "/api/route" | "/api/events" | "/api/reports" | "/api/orders" | "/api/contracts/signed";

// The client's own types are those of the service.
expectTypeOf<Described["ErrorCode"]>().toEqualTypeOf<ErrorCode>();
expectTypeOf<Described["EventView"]>().toExtend<EventView>();
expectTypeOf<Described["EventPage"]>().toExtend<EventPage>();
expectTypeOf<ListOptions>().toExtend<Queried>();
expectTypeOf<keyof Described["EventView"]>().toEqualTypeOf<keyof EventView>();
expectTypeOf<keyof Described["EventPage"]>().toEqualTypeOf<keyof EventPage>();
expectTypeOf<keyof Described["Run"]>().toEqualTypeOf<keyof Run>();
expectTypeOf<keyof Queried>().toEqualTypeOf<keyof ListOptions>();

// A service's own event types have their paths and bodies.
expectTypeOf<EventPath<paths>>().toEqualTypeOf<Own>();
const headers = async () => ({ authorization: "Bearer t" });
const outbox = new OutboxClient<paths>({ headers, retry: { maxDelayMs: 1_000 } });
await outbox.submit({ report: "sales" }, { path: "/api/reports" });
await outbox.submit({ documentName: "a" });
await outbox.submit({ name: "n", data: { any: "thing" } }, { path: "/api/events" });
// @ts-expect-error
await outbox.submit({ report: "weather" }, { path: "/api/reports" });
// @ts-expect-error
await outbox.submit({ report: "sales" });
// @ts-expect-error
await outbox.submit({ report: "sales" }, { path: "/api/report" });
// @ts-expect-error
await outbox.submit([{ name: "n" }], { path: "/api/events" });
// @ts-expect-error
await outbox.submit({}, { path: "/api/uploads" });

// Without them, those of the packaged service.
await new OutboxClient().submit({ documentName: "a" });
// @ts-expect-error
await new OutboxClient().submit({ report: "sales" }, { path: "/api/reports" });

const hooks = outboxHooks<paths>();
hooks.useSubmit("/api/reports").submit({ report: "stock" });
hooks.useSubmit().submit(outbox.upload(new Blob()));
useSubmit().submit({ documentName: "a" });
// @ts-expect-error
hooks.useSubmit("/api/reports").submit({ documentName: "a" });

// What a front end names has its type.
type Named = [client.Accepted, client.OutboxClientOptions, client.QueueEntry, client.QueueStore];
type Options = [client.RetryPolicy, client.SubmitOptions, client.UploadOptions, client.WaitOptions];
type Others = [client.DefaultPaths, client.Refusal, client.RefusalCode, client.UploadedDocument];
expectTypeOf<client.EventBody<paths, "/api/orders">>().not.toBeAny();
expectTypeOf<client.FinalEvent>().toExtend<EventView>();
expectTypeOf<[...Named, ...Options, ...Others]>().not.toBeAny();

// A wait ends with runs, or with the word that there are none.
const event = await outbox.waitFor("id");
if (event.noRun) expectTypeOf(event.run).toEqualTypeOf<null>();
else expectTypeOf(event.run).toEqualTypeOf<EventView["run"]>(); // a dead event has none

// A code is one of the service's, or a status of somebody between.
const { code } = new OutboxError(401, "session_required", "");
expectTypeOf(code).toEqualTypeOf<ErrorCode | `http_${number}`>();
