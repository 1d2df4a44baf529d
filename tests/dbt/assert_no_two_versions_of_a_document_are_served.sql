-- A row is a document of which a collection would serve chunks of several versions.
-- (That Postgres holds what the manifest says is a test of its own.)
select
    vector_collection,
    doc_id,
    count(distinct document_version_id) as versions
from {{ ref("vector_manifest") }}
where not is_deleted
group by vector_collection, doc_id
having count(distinct document_version_id) > 1
