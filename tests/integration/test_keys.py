"""API keys and organisations in a real database."""

from uuid import UUID

import pytest

from service.commands import keys as command
from service.commands.keys import Wanted
from service.db import keys
from service.db.keys import KEY_BYTES, Scope
from service.db.types import Pool
from service.ids import avatar_spelling
from service.settings import Settings, SettingsError
from service.times import now_utc


@pytest.fixture
def settings(dsn: str) -> Settings:
    return Settings(database_url=dsn)


def wanted(organisation: str = "acme", *scopes: str, policy: str = "standard") -> Wanted:
    return Wanted(organisation=organisation, name="ci", scopes=scopes, policy=policy)


async def test_a_key_is_shown_once_and_only_its_hash_is_kept(
    pool: Pool, settings: Settings
) -> None:
    key = await command.create(settings, wanted())
    assert key.startswith("sk_live_")
    assert len(bytes.fromhex(key.removeprefix("sk_live_"))) == KEY_BYTES
    rows = str(await pool.fetch("SELECT to_jsonb(api_key) FROM api_key"))
    assert key not in rows
    assert key[12:] not in rows
    async with pool.acquire() as conn:
        who = await keys.principal_of(conn, key)
    assert who is not None
    assert (who.organisation_id, who.policy, who.sees) == ("acme", "standard", "acme")


async def test_a_key_without_scopes_gets_all_but_admin(pool: Pool, settings: Settings) -> None:
    key = await command.create(settings, wanted())
    async with pool.acquire() as conn:
        who = await keys.principal_of(conn, key)
    assert who is not None
    assert who.scopes == {scope.value for scope in Scope} - {"admin"}


async def test_a_key_has_exactly_the_scopes_it_was_given(pool: Pool, settings: Settings) -> None:
    key = await command.create(settings, wanted("acme", "admin", "events:read"))
    async with pool.acquire() as conn:
        who = await keys.principal_of(conn, key)
    assert who is not None
    assert who.scopes == {"admin", "events:read"}


async def test_unknown_scopes_are_all_named_and_nothing_is_made(
    pool: Pool, settings: Settings
) -> None:
    with pytest.raises(SettingsError, match="no such scope: everything, root"):
        await command.create(settings, wanted("acme", "root", "events:read", "everything"))
    assert await pool.fetchval("SELECT count(*) FROM api_key") == 0
    assert await pool.fetchval("SELECT count(*) FROM organisation WHERE id = 'acme'") == 0


@pytest.mark.parametrize("name", ["", "Acme", "a b", "-acme", "a" * 64, "acme\n", "**", "../etc"])
async def test_what_cannot_name_an_organisation_is_refused(
    pool: Pool, settings: Settings, name: str
) -> None:
    with pytest.raises(SettingsError, match="names no organisation"):
        await command.create(settings, wanted(name))
    assert await pool.fetchval("SELECT count(*) FROM api_key") == 0


async def test_a_second_key_does_not_change_the_organisations_policy(
    pool: Pool, settings: Settings
) -> None:
    await command.create(settings, wanted(policy="strict"))
    key = await command.create(settings, wanted(policy="standard"))
    async with pool.acquire() as conn:
        who = await keys.principal_of(conn, key)
    assert who is not None
    assert who.policy == "strict"


async def test_a_platform_key_sees_every_organisation(pool: Pool, settings: Settings) -> None:
    key = await command.create(settings, wanted("*"))
    async with pool.acquire() as conn:
        who = await keys.principal_of(conn, key)
        assert who is not None
        assert (who.is_platform, who.sees) == (True, None)
        assert await keys.default_policy_of(conn, "*") is None  # nothing can be created for it


async def test_keys_are_listed_newest_first_by_their_first_characters(settings: Settings) -> None:
    made = [await command.create(settings, wanted(name)) for name in ("acme", "rival", "acme")]
    found = await command.listed(settings, None)
    assert [key.hint for key in found] == [key[:12] for key in made[::-1]]
    mine = await command.listed(settings, "acme")
    assert {key.organisation_id for key in mine} == {"acme"}
    assert len(mine) == 2


async def test_a_revoked_key_is_nobodys_and_is_revoked_once(pool: Pool, settings: Settings) -> None:
    key = await command.create(settings, wanted())
    other = await command.create(settings, wanted())
    (mine,) = [k for k in await command.listed(settings, None) if key.startswith(k.hint)]
    assert await command.revoke(settings, str(mine.id)) is True
    assert await command.revoke(settings, str(mine.id)) is False
    async with pool.acquire() as conn:
        assert await keys.principal_of(conn, key) is None
        assert await keys.principal_of(conn, other) is not None


@pytest.mark.parametrize("key_id", ["", "nope", avatar_spelling(UUID(int=7)), str(UUID(int=7))])
async def test_revoking_what_is_not_there_says_so(settings: Settings, key_id: str) -> None:
    assert await command.revoke(settings, key_id) is False


async def test_a_key_is_compared_whole(pool: Pool, settings: Settings) -> None:
    key = await command.create(settings, wanted())
    async with pool.acquire() as conn:
        for near in (key[:-1], key + "0", key.upper(), " " + key, key.removeprefix("sk_live_"), ""):
            assert await keys.principal_of(conn, near) is None


async def test_an_organisation_is_made_once(pool: Pool) -> None:
    async with pool.acquire() as conn:
        assert await keys.create_organisation(conn, "acme", "Acme", policy="strict") is True
        assert await keys.create_organisation(conn, "acme", "Other", policy="standard") is False
        assert await keys.default_policy_of(conn, "acme") == "strict"
        assert await keys.default_policy_of(conn, "nobody") is None


async def test_the_time_of_a_revocation_is_kept(pool: Pool, settings: Settings) -> None:
    await command.create(settings, wanted())
    (key,) = await command.listed(settings, None)
    now = now_utc()
    async with pool.acquire() as conn:
        await keys.revoke(conn, key.id, now=now)
    (key,) = await command.listed(settings, None)
    assert key.revoked_at == now
