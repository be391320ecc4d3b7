"""Who may post an event type of a file: people by their issuers, machines by their keys."""

from __future__ import annotations

from tests.support.declared_service import declared_service

REPORT = {
    "name": "report/requested",
    "path": "/api/reports",
    "body": {"type": "object", "properties": {"report": {"type": "string"}}},
}
SALES = {"report": "sales"}


NIGHTLY, SHOP = "Bearer 0123456789abcdef", "Bearer fedcba9876543210"
KEYS = {"OUTBOX_EVENT_KEYS": "nightly:0123456789abcdef,shop:fedcba9876543210"}
NO_SESSION, NO_KEY = (401, "session_required"), (401, "event_key_required")
NOT_ALLOWED = (403, "sender_not_allowed")
POSTS = [
    ("session", "ada", None),
    ("session", NIGHTLY, NO_SESSION),
    ("dev", "ada", None),
    ("dev", NIGHTLY, NO_SESSION),
    ("next-auth", "ada", NOT_ALLOWED),
    (["next-auth", "session"], "ada", None),
    (["key nightly", "https://issuer.example"], "ada", NOT_ALLOWED),
    (["key nightly", "https://issuer.example"], "key nightly", NOT_ALLOWED),
    ("key", NIGHTLY, None),
    ("key", "ada", NO_KEY),
    ("key", "Bearer guess", NO_KEY),
    ("key", None, NO_KEY),
    ("key nightly", NIGHTLY, None),
    ("key nightly", SHOP, NOT_ALLOWED),
    (["session", "key"], "ada", None),
    (["session", "key"], SHOP, None),
    (["session", "key"], "Bearer guess", NO_SESSION),
    (["session", "key nightly"], SHOP, NOT_ALLOWED),
    (["next-auth", "key nightly"], NIGHTLY, None),
    (["next-auth", "key nightly"], "ada", NOT_ALLOWED),
]


def type_for(number, who):
    return {**REPORT, "name": f"report/{number}", "path": f"/api/reports-{number}", "who": who}


async def test_only_those_post_who_are_named(tmp_path, inngest_api):
    types = [type_for(number, who) for number, (who, _, _) in enumerate(POSTS)]
    async with declared_service(tmp_path, inngest_api, types, **KEYS) as service:
        for number, (who, user, expected) in enumerate(POSTS):
            answer = await service.post(f"/api/reports-{number}", SALES, user=user)
            refused = (answer.status, (await answer.json()).get("code"))
            assert refused == (expected or (200, None)), (who, user)


async def test_a_machine_owns_what_it_posts_and_is_counted_by_its_name(tmp_path, inngest_api):
    types = [{**REPORT, "who": "key", "data": {"by": "$user"}}]
    nightly = {"id": "nightly", "email": None, "name": None, "organizationId": None}
    async with declared_service(tmp_path, inngest_api, types, **KEYS) as service:
        event = await service.delivered("/api/reports", SALES, user=NIGHTLY)
        assert event["data"] == {"by": {**nightly, "issuer": "key"}}
        first = await (await service.post("/api/reports", SALES, user=NIGHTLY, key="k")).json()
        again = await service.post("/api/reports", SALES, user=NIGHTLY, key="k")
        assert await again.json() == first
        where = again.headers["Location"]
        seen = [
            (await service.client.get(where, headers={"Authorization": one})).status
            for one in (NIGHTLY, SHOP)
        ]
        assert seen == [200, 404]
        metrics = await (await service.client.get("/metrics")).text()
        assert 'outbox_accepted_by_key_total{key="nightly"} 2.0' in metrics


async def test_without_event_keys_a_type_for_machines_is_not_there(tmp_path, inngest_api):
    async with declared_service(tmp_path, inngest_api, [{**REPORT, "who": "key"}]) as service:
        refused = await service.refusal("/api/reports", SALES, user=NIGHTLY)
        assert refused[:2] == (404, "not_found")


async def test_the_description_says_who_may_post(tmp_path, inngest_api):
    people = {"session", "nextAuth", "authJs", "userToken"}
    expected = [
        ("session", people, {"session_required"}),
        ("key", {"eventKey"}, {"event_key_required"}),
        (["session", "key"], {*people, "eventKey"}, {"session_required"}),
        (["session", "key nightly"], {*people, "eventKey"}, {"session_required"}),
    ]
    types = [type_for(number, who) for number, (who, _, _) in enumerate(expected)]
    async with declared_service(tmp_path, inngest_api, types) as service:
        document = await (await service.client.get("/openapi.json")).json()
    for number, (who, schemes, codes) in enumerate(expected):
        described = document["paths"][f"/api/reports-{number}"]["post"]
        assert {name for one in described["security"] for name in one} == schemes, who
        unauthorized = described["responses"]["401"]["content"]["application/json"]["schema"]
        assert set(unauthorized["properties"]["code"]["enum"]) == codes, who
        told = "sender_not_allowed" in str(described["responses"].get("403"))
        assert told is ("key nightly" in who), who
