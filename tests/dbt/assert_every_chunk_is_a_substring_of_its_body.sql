-- A row is a chunk whose offsets do not lead to its text in the body of its document version, or
-- whose hashes are not of what is embedded and of what is shown.
with written as (

    select
        chunk_id,
        document_version_id,
        text,
        start_char,
        end_char,
        text_hash = {{ sha256_hex("context || text") }}
        and shown_text_hash = {{ sha256_hex("text") }} as is_hashed
    from {{ ref("chunks") }}
    where {{ written_by_this_run(ref("chunks")) }}

)

select
    written.chunk_id,
    written.document_version_id,
    written.start_char,
    written.end_char
from written
inner join {{ ref("documents") }} as documents
    on written.document_version_id = documents.document_version_id
where
    substr(documents.body, written.start_char, written.end_char - written.start_char + 1)
    is distinct from written.text
    or written.is_hashed is distinct from true
