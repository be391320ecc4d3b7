import type { components, paths } from "./schema.js";

type Accepts<Path extends keyof paths> = paths[Path] extends {
  post: { responses: { 200: { content: { "application/json": infer Answer } } } };
}
  ? Answer extends components["schemas"]["Accepted"]
    ? Path
    : never
  : never;

/** The paths that take an event from a signed-in user. */
export type EventPath = { [Path in keyof paths]: Accepts<Path> }[keyof paths];

/** What is posted to a path. */
export type EventBody<Path extends EventPath> = paths[Path] extends {
  post: { requestBody: { content: { "application/json": infer Body } } };
}
  ? Body
  : never;
