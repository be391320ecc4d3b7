const service = process.env.OUTBOX_SERVICE_URL ?? "http://127.0.0.1:3001";

/** The service answers on the front end's own origin, so that the session cookie reaches it. */
const OUTBOX_PATHS = ["/api/reports", "/api/route", "/api/uploads", "/api/events/:path*"];

/** @type {import("next").NextConfig} */
export default {
  rewrites: async () =>
    OUTBOX_PATHS.map((source) => ({ source, destination: `${service}${source}` })),
};
