-- Review: what people are asked to judge, who they are, and what they said.
create schema {prefix}review;

create table {prefix}review.reviewers (
    reviewer text primary key,
    -- Lower-case hex. The token itself is shown once and kept nowhere.
    token_sha256 text not null unique,
    is_active boolean not null default true,
    added_at timestamptz not null default now()
);

-- Logins: a random name in the browser's cookie, of which only the hash is here.
create table {prefix}review.sessions (
    session_sha256 text primary key,
    reviewer text not null references {prefix}review.reviewers (reviewer),
    expires_at timestamptz not null
);

create table {prefix}review.items (
    queue_item_id text primary key,
    kind text not null check (kind in ('trajectory', 'pair')),
    stratum text not null,
    priority double precision not null,
    reason text not null,
    leaf_node_ids text[] not null,
    pair_id text,
    -- {"context": [messages], "sides": [{"leaf_node_id", "messages"}]}, the sides in the order of
    -- `leaf_node_ids`. Not jsonb, which has no place for a null character in a text.
    content json not null,
    content_sha256 text not null,
    pushed_at timestamptz not null default now(),
    -- When the item was gone from the queue; null while it is in it.
    withdrawn_at timestamptz,
    check (cardinality(leaf_node_ids) = case kind when 'pair' then 2 else 1 end),
    check ((kind = 'pair') = (pair_id is not null))
);
create index items_by_priority
on {prefix}review.items (priority desc, queue_item_id) where withdrawn_at is null;

-- An item is open for one reviewer at a time, and a reviewer has one item open.
create table {prefix}review.locks (
    queue_item_id text primary key references {prefix}review.items (queue_item_id),
    reviewer text not null unique references {prefix}review.reviewers (reviewer),
    expires_at timestamptz not null
);

-- How an item was shown to a reviewer, the same at every time, and whether it was passed over.
create table {prefix}review.views (
    queue_item_id text not null references {prefix}review.items (queue_item_id),
    reviewer text not null references {prefix}review.reviewers (reviewer),
    -- Whether the second side stood first.
    is_swapped boolean not null,
    shown_at timestamptz not null default now(),
    skipped_at timestamptz,
    primary key (queue_item_id, reviewer)
);

-- What people said. A label repeats what it is about, so that it stands whatever becomes of its item.
-- An undo is a row that withdraws another one and says nothing else.
create table {prefix}review.labels (
    label_id uuid primary key default gen_random_uuid(),
    label_number bigint generated always as identity unique,
    withdraws uuid unique references {prefix}review.labels (label_id),
    queue_item_id text not null references {prefix}review.items (queue_item_id),
    kind text not null,
    leaf_node_ids text[] not null,
    pair_id text,
    content_sha256 text not null,
    reviewer text not null,
    -- loreline, or the tool that the label was imported from.
    origin text not null default 'loreline',
    is_swapped boolean,
    preferred text check (preferred in ('a', 'b', 'tie')),
    strength smallint check (strength between 1 and 3),
    categories text[],
    score smallint check (score between 1 and 5),
    comment text,
    labelled_at timestamptz not null default clock_timestamp(),
    check (withdraws is not null or (kind = 'pair') = (preferred is not null)),
    check (withdraws is null or coalesce(preferred, comment) is null)
);
create index labels_by_item on {prefix}review.labels (queue_item_id) where withdraws is null;

create function {prefix}review.refuse_change() returns trigger
language plpgsql
as $$
begin
    raise exception 'labels are only added to'
    using hint = 'withdraw a label by a row that names it in withdraws';
end
$$;

create trigger labels_stay
before update or delete or truncate on {prefix}review.labels
for each statement execute function {prefix}review.refuse_change();

-- Labels, each with when it was withdrawn; null where it stands.
create view {prefix}review.label_states as
select
    labels.*,
    undone.labelled_at as withdrawn_at
from {prefix}review.labels as labels
left join {prefix}review.labels as undone on labels.label_id = undone.withdraws
where labels.withdraws is null;

-- How many labels of an item stand.
create function {prefix}review.label_count(asked_item_id text) returns bigint
language sql stable
return (
    select count(*)
    from {prefix}review.label_states
    where queue_item_id = asked_item_id and withdrawn_at is null
);

-- What a reviewer is given: what they have open, or else the first item of the queue that wants
-- labels, that nobody else has open, and that they have neither judged nor skipped.
create function {prefix}review.next_item(asker text, wanted_labels bigint) returns text
language sql stable
return coalesce(
    (
        select queue_item_id
        from {prefix}review.locks
        where
            reviewer = asker
            and expires_at > now()
            and {prefix}review.label_count(queue_item_id) < wanted_labels
    ),
    (
        select items.queue_item_id
        from {prefix}review.items as items
        where
            items.withdrawn_at is null
            and not exists (
                select
                from {prefix}review.locks as locks
                where
                    locks.queue_item_id = items.queue_item_id
                    and locks.reviewer <> asker
                    and locks.expires_at > now()
            )
            and not exists (
                select
                from {prefix}review.views as views
                where
                    views.queue_item_id = items.queue_item_id
                    and views.reviewer = asker
                    and views.skipped_at is not null
            )
            and not exists (
                select
                from {prefix}review.label_states as said
                where
                    said.queue_item_id = items.queue_item_id
                    and said.reviewer = asker
                    and said.withdrawn_at is null
            )
            and {prefix}review.label_count(items.queue_item_id) < wanted_labels
        order by items.priority desc, items.queue_item_id
        limit 1
    )
);
