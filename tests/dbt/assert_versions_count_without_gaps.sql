-- A row is a document whose versions are not numbered 1, 2, 3, ….
select
    doc_id,
    count(*) as versions,
    min(version_number) as first_version_number,
    max(version_number) as last_version_number
from {{ ref("documents") }}
group by doc_id
having min(version_number) <> 1 or max(version_number) <> count(*)
