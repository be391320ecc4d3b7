-- SQLite's outbox gets the places that this one has had from the first.
COMMENT ON TABLE outbox IS 'written once; outbox_ready, outbox_claims or outbox_done says where';
