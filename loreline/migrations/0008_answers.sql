-- Answers: the two rankings may weigh differently, a hit says where in its document it stands, and
-- the words of a question can be marked in a text.

drop function {prefix}serving.search(text, vector, text[], integer, jsonb, text);

-- The chunks that answer a question best, among those that the principals may read.
--
-- The score is the cosine similarity, the share of the question's weight that the chunk's words
-- carry (BM25, between 0 and 1), or their weighted mean when both are asked for. The formulas, their
-- sources and what the bounds cost are in `docs/decisions/lexical-candidates.md`.
--
-- principals: who asks. What is public is always searched, and by default nothing else.
-- filters: source, container, author (a value or a list), since (inclusive), until (exclusive).
-- collection: a served collection; by default the one that is marked so.
-- dense_weight: what the similarity counts in a fusion, 0 to 1; the words count the rest.
--
-- Stable, so that all statements in it see the one snapshot of the query that calls it.
create function {prefix}serving.search(
    query_text text,
    query_embedding vector,
    principals text[] default '{public}',
    k integer default 10,
    filters jsonb default '{}',
    collection text default null,
    dense_weight double precision default 0.5
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
    chunk_index integer,
    start_char integer,
    end_char integer,
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
        else format('%s * %s + %s * %s', dense_weight, similarity, 1 - dense_weight, relevance)
    end;
    depth constant integer := case
        when asked.total_weight is null or query_embedding is null then wanted
        else greatest(wanted, fused)
    end;
    nearest text[];
    matching text[];
begin
    if dense_weight is null or dense_weight not between 0 and 1 then
        raise exception 'the weight of the vectors is %, not a number from 0 to 1', dense_weight
        using errcode = 'invalid_parameter_value',
            hint = 'leave it out: 0.5 weighs both alike';
    end if;
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
                container, author_id, source_updated_at, chunk_index, start_char, end_char,
                %s as score, dense_rank, lexical_rank
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

-- Texts with the words of a question between two characters, by the rules that its words are found
-- with in a collection.
create function {prefix}serving.marked(
    question_text text, texts text[], first text, last text, collection text default null
) returns text[]
language sql stable
begin atomic
    select array_agg(
        ts_headline(
            searched.text_search_config::regconfig,
            given.text,
            asked.words,
            format('HighlightAll=true, StartSel="%s", StopSel="%s"', first, last)
        )
        order by given.place
    )
    from {prefix}serving.collection_to_search(collection) as searched
    cross join lateral (
        select string_agg(quote_literal(lexeme), ' | ')::tsquery as words
        from unnest(tsvector_to_array(to_tsvector(
            searched.text_search_config::regconfig, left(question_text, 2000)
        ))) as lexeme
    ) as asked
    cross join lateral unnest(texts) with ordinality as given (text, place)
    where asked.words is not null;
end;
