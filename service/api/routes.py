"""Every path on one page."""

from aiohttp import web

from service.api import assets, avatar_profiles, avatars, deletion, events, fitting, health, uploads

ROUTES = (
    # family A
    web.post("/v1/avatars", avatars.create),
    web.get("/v1/avatars/{id}", avatars.get),
    web.delete("/v1/avatars/{id}", deletion.avatar),
    # family B
    web.post("/avatar-profiles/create", avatar_profiles.create),
    web.get("/avatar-profiles", avatar_profiles.list_all),
    web.get("/avatar-profiles/{id}", avatar_profiles.get),
    web.post("/uploads/{kind}/get_upload_url", uploads.get_upload_url),
    web.post("/uploads/{kind}/finalize_upload", uploads.finalize_upload),
    # ours
    web.get("/v1/avatars/{id}/verdict", avatars.verdict),
    web.post("/v1/avatars/{id}/fitting", fitting.report),
    web.get("/v1/assets/{id}", assets.get),
    web.get("/v1/assets/{id}/content", assets.content),
    web.delete("/v1/assets/{id}", deletion.asset),
    web.get("/v1/bytes/{token}", assets.signed_bytes),
    web.post("/v1/forms/{token}", uploads.receive),
    web.get("/v1/events", events.feed),
    web.get("/schemas/events/{type}/1", events.event_schema),
    # operators
    web.get("/livez", health.live),
    web.get("/readyz", health.ready),
    web.get("/metrics", health.metrics),
)
