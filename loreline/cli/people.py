"""Who a person is: their accounts in every source, by whatever name they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loreline.errors import LorelineError

if TYPE_CHECKING:
    import duckdb

    from loreline.settings import Settings

PUBLIC = "public"

# Accounts that share an e-mail address are one person; one without is a person of its own.
ACCOUNTS = """
with accounts as (
    select
        source,
        external_id,
        principal,
        name,
        email,
        coalesce(nullif(email, ''), principal) as person,
        $asked <> '' and lower($asked) in (
            lower(principal), lower(external_id), lower(name), lower(email), lower(handle),
            '@' || lower(handle)
        ) as is_asked
    from lake.{prefix}knowledge.people
    where not is_deleted
)

select source, external_id, principal, name, email, person
from accounts
where person in (select person from accounts where is_asked)
order by person, source, external_id
"""


@dataclass(frozen=True)
class Person:
    """Somebody, with all accounts that are known to be theirs."""

    name: str
    email: str
    principals: tuple[str, ...]
    account_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name or self.email or 'somebody'} ({', '.join(self.principals)})"


def find(connection: duckdb.DuckDBPyConnection, settings: Settings, asked: str) -> Person:
    """The one person of this principal, account id, e-mail address, handle or name.

    Raises:
        LorelineError: there is nobody, or more than one.
    """
    query = ACCOUNTS.format(prefix=settings.prefix)
    rows = connection.execute(query, {"asked": asked.strip()}).fetchall()
    found: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        found.setdefault(row[-1], []).append(row)
    people = [_person(accounts) for accounts in found.values()]
    if len(people) == 1:
        return people[0]
    if people:
        raise LorelineError(
            f"{asked} may be {' or '.join(str(person) for person in people)}",
            "give an e-mail address or a principal",
        )
    raise LorelineError(
        f"nobody is called {asked}",
        f'look at `loreline sql "from lake.{settings.prefix}knowledge.people"`',
    )


def principals(
    connection: duckdb.DuckDBPyConnection, settings: Settings, asked: str | None
) -> tuple[str, ...]:
    """Whom a search is for, as principals; the public when nobody is named.

    A principal of an account that is not known stands for itself alone.
    """
    if asked is None or asked == PUBLIC:
        return (PUBLIC,)
    try:
        return (PUBLIC, *find(connection, settings, asked).principals)
    except LorelineError:
        if ":" not in asked:
            raise
        return (PUBLIC, asked)


def _person(accounts: list[tuple[str, ...]]) -> Person:
    email = accounts[0][4] or ""
    # What is shared with a domain is shared with everybody who has an address there.
    domain = email.rpartition("@")[2]
    return Person(
        name=next((name for _, _, _, name, _, _ in accounts if name), ""),
        email=email,
        principals=(
            *(account[2] for account in accounts),
            *((f"domain:{domain}",) if domain else ()),
        ),
        account_ids=tuple(account[1] for account in accounts),
    )
