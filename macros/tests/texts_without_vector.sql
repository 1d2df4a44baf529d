{# Texts of a model, under an embedding configuration that has read them, of which there is neither
   a vector nor a reason why not. `condition` says over `texts` which rows are to be embedded. #}
{% macro texts_without_vector(relation, condition="true") -%}
with wanted as (

    select
        texts.text_hash,
        configurations.config_hash
    from {{ relation }} as texts
    cross join {{ ref("embedding_configurations") }} as configurations
    where
        {{ condition }}
        and {{ read_by(
            ref("text_embeddings"), relation, "texts._batch", "configurations.config_hash"
        ) }}
    group by texts.text_hash, configurations.config_hash

)

select
    wanted.text_hash,
    wanted.config_hash
from wanted
left join {{ ref("text_embeddings") }} as embeddings
    on wanted.text_hash = embeddings.text_hash
    and wanted.config_hash = embeddings.config_hash
left join {{ postgres_table("operations", "quarantine") }} as set_aside
    on set_aside.source = 'embedding'
    and wanted.text_hash = set_aside.external_id
    and wanted.config_hash = set_aside.origin
where embeddings.text_hash is null and set_aside.fingerprint is null
{%- endmacro %}
