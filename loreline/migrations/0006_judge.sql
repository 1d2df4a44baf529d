-- What models were asked to judge, and what they said.

-- Calls of judges, each attempt a row: what was answered is not asked, and paid for, again.
create table {prefix}operations.judge_calls (
    call_number bigint generated always as identity primary key,
    call_id text not null,
    attempt integer not null,
    judgement_id text not null,
    judge text not null,
    -- The judge's name and how its version's hash begins.
    labeller_version text not null,
    kind text not null check (kind in ('trajectory', 'pair')),
    subject_id text not null,
    leaf_node_ids text[] not null,
    content_sha256 text not null,
    -- Whether b stood before a.
    is_swapped boolean not null,
    model text not null,
    -- An invalid answer is not what was asked for, a failed call has none.
    status text not null check (status in ('completed', 'invalid', 'failed')),
    -- Sides are named a and b here, however they stood.
    verdict json,
    problem text,
    response json not null,
    prompt_tokens bigint,
    completion_tokens bigint,
    -- In the currency of `model_prices`; null where the model has no price.
    cost numeric,
    called_at timestamptz not null default clock_timestamp(),
    unique (call_id, attempt),
    check ((status = 'completed') = (verdict is not null)),
    check ((status = 'completed') = (problem is null))
);
create index judge_calls_by_version on {prefix}operations.judge_calls (labeller_version);

-- Which version of a judge's configuration counts: the one that was adopted last. One that was given
-- up may be adopted again.
create table {prefix}operations.judge_versions (
    adoption_number bigint generated always as identity primary key,
    judge text not null,
    labeller_version text not null,
    -- All that shapes what it says: instructions, schema, parameters.
    configuration json not null,
    adopted_at timestamptz not null default clock_timestamp()
);

-- One row per judgement that is whole (of a pair, in both orders), with since when it stands, or does
-- not because another version of its judge counts.
create view {prefix}operations.judgements as
with adoptions as (
    select
        judge,
        labeller_version,
        adopted_at,
        lead(adopted_at) over (partition by judge order by adoption_number) as replaced_at,
        row_number() over (partition by labeller_version order by adoption_number desc) as recency
    from {prefix}operations.judge_versions
),

answered as (
    select
        judgement_id,
        judge,
        labeller_version,
        kind,
        subject_id,
        leaf_node_ids,
        model,
        min(content_sha256) as content_sha256,
        json_agg(verdict order by is_swapped) as verdicts,
        max(called_at) as judged_at
    from {prefix}operations.judge_calls
    where status = 'completed'
    group by judgement_id, judge, labeller_version, kind, subject_id, leaf_node_ids, model
    having count(*) = case kind when 'pair' then 2 else 1 end
)

select
    answered.*,
    adoptions.replaced_at is not null as is_withdrawn,
    greatest(answered.judged_at, coalesce(adoptions.replaced_at, adoptions.adopted_at))
        as stands_since
from answered
inner join adoptions
    on answered.labeller_version = adoptions.labeller_version
    and adoptions.recency = 1;
