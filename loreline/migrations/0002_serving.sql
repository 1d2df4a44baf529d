-- Search: one table of chunks per collection, and the function that searches them.
create extension if not exists vector;

create schema {prefix}serving;

-- A collection is what one embedding configuration makes of the chunks of one chunking
-- configuration. It is built beside the one that it replaces, and searched once it is served.
create table {prefix}serving.collections (
    vector_collection text primary key,
    embedding_model text not null,
    chunking_strategy text not null,
    config_hash text not null,
    dimensions integer not null,
    text_search_config text not null,
    status text not null default 'building' check (status in ('building', 'served', 'retired')),
    is_default boolean not null default false,
    -- Names the table of its chunks: see `chunk_table`.
    table_number bigint generated always as identity unique,
    -- Through which batch the table is complete. Null while there is no table.
    pushed_batch bigint,
    chunk_count bigint not null default 0,
    -- Sum of the chunks' lengths, in distinct lexemes.
    lexeme_total bigint not null default 0,
    created_at timestamptz not null default now(),
    built_at timestamptz,
    retired_at timestamptz
);
create unique index collections_one_served
on {prefix}serving.collections (embedding_model, chunking_strategy) where status = 'served';
create unique index collections_one_default
on {prefix}serving.collections (is_default) where status = 'served' and is_default;

-- In how many chunks of a collection each lexeme occurs.
create table {prefix}serving.lexeme_counts (
    vector_collection text not null
    references {prefix}serving.collections (vector_collection) on delete cascade,
    lexeme text not null,
    chunks bigint not null,
    primary key (vector_collection, lexeme)
);

-- The table that holds the chunks of a collection.
create function {prefix}serving.chunk_table(table_number bigint) returns text
language sql immutable
return '{prefix}serving.chunks_' || table_number;

-- What is searched for by words: the text, and what it stands under.
create function {prefix}serving.lexemes(
    text_search_config regconfig, title text, heading_path text[], text text
) returns tsvector
language sql stable parallel safe
return to_tsvector(
    text_search_config, concat_ws(' ', title, array_to_string(heading_path, ' '), text)
);

-- SHA-256 of what a row holds: its text, its vector and who may read it.
-- `loreline.serving.fingerprints.fingerprint` is the same in Python.
create function {prefix}serving.fingerprint(
    text text, embedding vector, allowed_principals text[]
) returns text
language sql immutable parallel safe
return encode(sha256(convert_to(
    encode(sha256(convert_to(text, 'UTF8')), 'hex')
    || ':' || encode(sha256(vector_send(embedding)), 'hex')
    || ':' || coalesce(
        (
            select string_agg(principal, ',' order by principal collate "C")
            from unnest(allowed_principals) as principal
        ),
        ''
    ),
    'UTF8'
)), 'hex');

create function {prefix}serving.fingerprints(table_number bigint) returns table (
    chunk_id text, doc_id text, document_version_id text, fingerprint text
)
language plpgsql stable
as $$
begin
    return query execute format(
        'select chunk_id, doc_id, document_version_id,
            {prefix}serving.fingerprint(text, embedding, allowed_principals)
        from %s',
        {prefix}serving.chunk_table(table_number)
    );
end
$$;

-- What can be found at this moment, row by row.
create view {prefix}serving.vector_rows as
select
    collections.vector_collection,
    held.chunk_id,
    held.doc_id,
    held.document_version_id,
    held.fingerprint
from {prefix}serving.collections as collections
cross join lateral {prefix}serving.fingerprints(collections.table_number) as held
where collections.status = 'served';

-- The served collection of a name, or the default one when there is no name.
create function {prefix}serving.collection_to_search(name text)
returns {prefix}serving.collections
language plpgsql stable
as $$
declare
    found_collection {prefix}serving.collections;
begin
    select * into found_collection
    from {prefix}serving.collections
    where status = 'served' and (vector_collection = name or (name is null and is_default));
    if not found then
        raise exception 'the % is not served', coalesce('collection ' || name, 'default collection')
        using errcode = 'undefined_object', hint = 'push it first, or search another one';
    end if;
    return found_collection;
end
$$;

-- A JSON list or a single value as a list of texts.
create function {prefix}serving.text_list(value jsonb) returns text[]
language sql immutable
return case
    when jsonb_typeof(value) = 'array'
        then array(select * from jsonb_array_elements_text(value))
    else array[value #>> '{}']
end;

-- The condition that a row meets which these principals may read and these filters keep.
create function {prefix}serving.condition(principals text[], filters jsonb) returns text
language plpgsql stable
as $$
declare
    wanted text := format(
        'allowed_principals && %L::text[]', array_append(coalesce(principals, '{}'), 'public')
    );
    filter_name text;
    filter_value jsonb;
begin
    for filter_name, filter_value in
        select * from jsonb_each(jsonb_strip_nulls(coalesce(filters, '{}')))
    loop
        wanted := wanted || ' and ' || case filter_name
            when 'source' then
                format('source = any(%L::text[])', {prefix}serving.text_list(filter_value))
            when 'container' then
                format('container = any(%L::text[])', {prefix}serving.text_list(filter_value))
            when 'author' then
                format('author_id = any(%L::text[])', {prefix}serving.text_list(filter_value))
            when 'since' then
                format('source_updated_at >= %L::timestamptz', filter_value #>> '{}')
            when 'until' then
                format('source_updated_at < %L::timestamptz', filter_value #>> '{}')
        end;
        if wanted is null then
            raise exception 'there is no filter %', quote_literal(filter_name) using
                errcode = 'invalid_parameter_value',
                hint = 'filters: source, container, author, since, until';
        end if;
    end loop;
    return wanted;
end
$$;

-- A question as words: each lexeme as a query of its own and what it weighs, the weight of all, and
-- the chunks that can be worth scoring, at most `candidate_limit` by the counts of the lexemes.
create type {prefix}serving.question as (
    lexemes tsquery[], weights double precision[], total_weight double precision,
    any_lexeme tsquery, candidates tsquery
);

-- Weights are ln(1 + (N - n + 0.5) / (n + 0.5)), Lucene's form of the Robertson-Spärck Jones
-- weight, which is never negative. Candidates hold one of the rarest lexemes, as many of them as
-- keep within the limit; where the rarest alone exceeds it, the rarest few together.
create function {prefix}serving.read_question(
    searched {prefix}serving.collections, question_text text, candidate_limit bigint
) returns {prefix}serving.question
language sql stable
begin atomic
    with asked as (
        select unnest(tsvector_to_array(to_tsvector(
            searched.text_search_config::regconfig, left(question_text, 2000)
        ))) as lexeme
    ),

    counted as (
        select
            (
                '''' || replace(replace(asked.lexeme, '\', '\\'), '''', '''''') || ''''
            )::tsquery as lexeme,
            coalesce(lexeme_counts.chunks, 0) as chunks
        from asked
        left join {prefix}serving.lexeme_counts
            on lexeme_counts.vector_collection = searched.vector_collection
            and lexeme_counts.lexeme = asked.lexeme
        order by lexeme_counts.chunks nulls last, asked.lexeme
        limit 32
    ),

    weighted as (
        select
            lexeme,
            chunks,
            ln(1 + (searched.chunk_count - chunks + 0.5) / (chunks + 0.5)) as weight,
            sum(chunks) over rarest_first as running_chunks,
            -- how many chunks hold all lexemes before this one, were they independent
            searched.chunk_count * exp(coalesce(
                sum(ln(chunks::double precision / searched.chunk_count)) over (
                    rarest_first rows between unbounded preceding and 1 preceding
                ),
                0
            )) as remaining_chunks
        from counted
        where chunks > 0
        window rarest_first as (order by chunks, lexeme)
    )

    select
        array_agg(lexeme),
        array_agg(weight),
        sum(weight) + (
            select coalesce(sum(ln(1 + (searched.chunk_count + 0.5) / 0.5)), 0)
            from counted
            where chunks = 0
        ),
        string_agg(lexeme::text, ' | ')::tsquery,
        coalesce(
            string_agg(lexeme::text, ' | ') filter (where running_chunks <= candidate_limit),
            string_agg(lexeme::text, ' & ') filter (where remaining_chunks > candidate_limit)
        )::tsquery
    from weighted;
end;

-- Where the chunks that meet a condition are, if they are few enough to be compared one by one.
-- Without sequential scans: those would read the whole table where the matches lie at its end.
create function {prefix}serving.few_chunks(
    chunks text, condition text, most bigint
) returns tid[]
language plpgsql stable
set enable_seqscan = off
as $$
declare
    places tid[];
begin
    execute format(
        'select case when count(*) <= $1 then coalesce(array_agg(place), ''{}'') end
        from (select ctid as place from %s where %s limit $1 + 1) as found',
        chunks, condition
    ) into places using most;
    return places;
end
$$;

-- The chunks of a relation nearest to an embedding, in order.
create function {prefix}serving.nearest_chunks(
    relation text, query_embedding vector, most integer
) returns text[]
language plpgsql stable
as $$
declare
    nearest text[];
begin
    execute format(
        'select array_agg(chunk_id order by distance, chunk_id)
        from (
            select chunk_id, embedding <=> $1 as distance
            from %s
            order by embedding <=> $1
            limit $2
        ) as found',
        relation
    ) into nearest using query_embedding, most;
    return coalesce(nearest, '{}');
end
$$;

-- The share of a question's weight that a chunk's words carry: BM25 (Robertson and Zaragoza, 2009),
-- as an expression over the chunk's `lexemes`, the question's lexemes ($2) and their weights ($3).
-- ts_rank of one lexeme is 6/pi^2 (1 + 1/4 + ... + 1/tf^2), within 0.005 of BM25's saturation
-- tf/(tf + k) for k = 0.64; the length of a chunk, in distinct lexemes, counts with b = 0.4.
create function {prefix}serving.relevance(
    searched {prefix}serving.collections, asked {prefix}serving.question
) returns text
language sql stable
return format(
    '(
        select coalesce(sum(weight / (
            1 + (0.6 + 0.4 * length(lexemes) / %s::float8)
            * (1 / nullif(ts_rank(''{1,1,1,1}'', lexemes, lexeme), 0) - 1)
        )), 0) / %s::float8
        from unnest($2, $3) as asked (lexeme, weight)
    )',
    greatest(searched.lexeme_total, 1)::float8 / greatest(searched.chunk_count, 1),
    asked.total_weight
);

-- The chunks of a relation that hold words of a question and answer it best by those, in order. Of
-- the chunks that match `candidates`, at most `candidate_limit` are scored.
create function {prefix}serving.matching_chunks(
    relation text,
    asked {prefix}serving.question,
    candidates tsquery,
    relevance text,
    candidate_limit bigint,
    most integer
) returns text[]
language plpgsql stable
as $$
declare
    matching text[];
begin
    execute format(
        'select array_agg(chunk_id order by relevance desc, chunk_id)
        from (
            select chunk_id, %s as relevance
            from (
                select chunk_id, lexemes from %s where lexemes @@ $1 limit $4
            ) as candidates
            order by relevance desc, chunk_id
            limit $5
        ) as found',
        relevance, relation
    ) into matching using candidates, asked.lexemes, asked.weights, candidate_limit, most;
    return coalesce(matching, '{}');
end
$$;

-- The chunks that answer a question best, among those that the principals may read.
--
-- The score is the cosine similarity, the share of the question's weight that the chunk's words
-- carry (BM25, between 0 and 1), or the mean of both when both are asked for. The formulas, their
-- sources and what the bounds cost are in `docs/decisions/lexical-candidates.md`.
--
-- principals: who asks. What is public is always searched, and by default nothing else.
-- filters: source, container, author (a value or a list), since (inclusive), until (exclusive).
-- collection: a served collection; by default the one that is marked so.
--
-- Stable, so that all statements in it see the one snapshot of the query that calls it.
create function {prefix}serving.search(
    query_text text,
    query_embedding vector,
    principals text[] default '{public}',
    k integer default 10,
    filters jsonb default '{}',
    collection text default null
) returns table (
    chunk_id text,
    doc_id text,
    document_version_id text,
    title text,
    url text,
    text text,
    heading_path text[],
    source text,
    container text,
    author_id text,
    source_updated_at timestamptz,
    score double precision,
    dense_rank bigint,
    lexical_rank bigint
)
language plpgsql stable
set search_path from current
set timezone = 'UTC'
set jit = off
set max_parallel_workers_per_gather = 0
set hnsw.ef_search = 120
set hnsw.iterative_scan = relaxed_order
as $search$
declare
    -- So many chunks that meet the filters are compared one by one.
    exhaustive_limit constant bigint := 2000;
    -- So many chunks are scored for their words.
    lexical_limit constant bigint := 5000;
    wanted constant integer := least(greatest(coalesce(k, 10), 0), 1000);
    -- So many chunks of each ranking take part in a fusion.
    fused constant integer := 50;

    searched constant {prefix}serving.collections :=
        {prefix}serving.collection_to_search(collection);
    asked constant {prefix}serving.question :=
        {prefix}serving.read_question(searched, query_text, lexical_limit);
    chunks constant text := {prefix}serving.chunk_table(searched.table_number);
    condition constant text := {prefix}serving.condition(principals, filters);
    -- Fenced, a relation is read whole; otherwise the planner may walk the vector index.
    fenced constant text := '(select * from %s where %s offset 0) as readable';
    relation text := format('(select * from %s where %s) as readable', chunks, condition);
    few tid[];

    similarity constant text := 'coalesce(1 - nullif(embedding <=> $1, ''NaN''), -1)';
    relevance constant text := {prefix}serving.relevance(searched, asked);
    score constant text := case
        when asked.total_weight is null then similarity
        when query_embedding is null then relevance
        else format('(%s + %s) / 2', similarity, relevance)
    end;
    depth constant integer := case
        when asked.total_weight is null or query_embedding is null then wanted
        else greatest(wanted, fused)
    end;
    nearest text[];
    matching text[];
begin
    if vector_dims(query_embedding) <> searched.dimensions then
        raise exception 'the query has % dimensions, collection % has %',
            vector_dims(query_embedding), searched.vector_collection, searched.dimensions
        using errcode = 'invalid_parameter_value',
            hint = format('embed the query with %s', searched.embedding_model);
    end if;

    if filters <> '{}' or searched.chunk_count <= exhaustive_limit then
        few := {prefix}serving.few_chunks(chunks, condition, exhaustive_limit);
    end if;
    if few is not null then
        relation := format(fenced, chunks, format('ctid = any(%L::tid[])', few));
    end if;

    if query_embedding is not null then
        nearest := {prefix}serving.nearest_chunks(relation, query_embedding, depth);
        -- The walk of an index ends at its limits even when it has found too few.
        if few is null and cardinality(nearest) < depth then
            nearest := {prefix}serving.nearest_chunks(
                format(fenced, chunks, condition), query_embedding, depth
            );
        end if;
    end if;

    if asked.lexemes is not null then
        matching := {prefix}serving.matching_chunks(
            relation, asked, case when few is null then asked.candidates else asked.any_lexeme end,
            relevance, lexical_limit, depth
        );
        if few is null and query_embedding is null and cardinality(matching) < wanted then
            matching := {prefix}serving.matching_chunks(
                relation, asked, asked.any_lexeme, relevance, lexical_limit, depth
            );
        end if;
    end if;

    return query execute format(
        $$
            select
                chunk_id, doc_id, document_version_id, title, url, text, heading_path, source,
                container, author_id, source_updated_at, %s as score, dense_rank, lexical_rank
            from unnest($4) with ordinality as nearest (chunk_id, dense_rank)
            full join unnest($5) with ordinality as matching (chunk_id, lexical_rank)
                using (chunk_id)
            inner join %s as held using (chunk_id)
            order by score desc, chunk_id
            limit $6
        $$,
        score, chunks
    )
    using query_embedding, asked.lexemes, asked.weights, nearest, matching, wanted;
end
$search$;
