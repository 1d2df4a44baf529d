-- A row is a version of a private document that everybody could read, or of a public one that not
-- everybody could.
select
    document_version_id,
    doc_id,
    visibility,
    allowed_principals
from {{ ref("documents") }}
where
    (visibility = 'public') <> list_contains(allowed_principals, 'public')
    and {{ written_by_this_run(ref("documents")) }}
