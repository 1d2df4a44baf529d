-- Several embedding configurations at once: how each collection keeps its vectors, and how a
-- question to it is embedded.

alter table {prefix}serving.collections
add column embedding_config_hash text,
add column chunking_config_hash text,
add column storage text not null default 'vector' check (storage in ('vector', 'halfvec')),
-- The settings of the embedding configuration that questions need: as long as a collection is
-- served, whatever was changed since it was made.
add column question_embedding json;

-- The same as for a vector, over the half-precision values that the row holds.
create function {prefix}serving.fingerprint(
    text text, embedding halfvec, allowed_principals text[]
) returns text
language sql immutable parallel safe
return encode(sha256(convert_to(
    encode(sha256(convert_to(text, 'UTF8')), 'hex')
    || ':' || encode(sha256(halfvec_send(embedding)), 'hex')
    || ':' || coalesce(
        (
            select string_agg(principal, ',' order by principal collate "C")
            from unnest(allowed_principals) as principal
        ),
        ''
    ),
    'UTF8'
)), 'hex');

-- A text is refused by a configuration, not by a model of some name: those of before are looked at
-- once more, and set aside again under the hash of the configuration. Nothing is embedded twice.
delete from {prefix}operations.watermarks
where
    model like '%embedding.text_embeddings'
    and exists (select from {prefix}operations.quarantine where source = 'embedding');
delete from {prefix}operations.quarantine where source = 'embedding';
