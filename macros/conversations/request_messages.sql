{# CTEs that give the messages of requests and of the answers to them, by their hashes.

   `wanted` is a relation (raw_dlt_id, choice_index), which name an execution's request and choice;
   `<name>` has for each message_hashes, the history that the request carried, and answer_hash, the
   message of that choice; null where there was none. #}
{% macro request_messages(name, wanted) -%}
  -- Found by their keys alone; then only the files of what was found are read for the lists.
  {{ name }}_found as (

    select
        wanted.raw_dlt_id,
        wanted.choice_index,
        requests._batch
    from {{ wanted }} as wanted
    inner join {{ ref("stg_gateway__chat_requests") }} as requests
        on wanted.raw_dlt_id = requests.raw_dlt_id
    group by wanted.raw_dlt_id, wanted.choice_index, requests._batch

  ),

  {{ name }} as (

    select
        found.raw_dlt_id,
        found.choice_index,
        requests.message_hashes,
        max(
            case
                when coalesce(choice.element.choice_index, 0) = found.choice_index
                    then choice.element.message_hash
            end
        ) as answer_hash
    from {{ name }}_found as found
    inner join {{ ref("stg_gateway__chat_requests") }} as requests
        on found.raw_dlt_id = requests.raw_dlt_id
        and found._batch = requests._batch,
        {{ each_choice("requests") }}
    group by found.raw_dlt_id, found.choice_index, requests.message_hashes

  )
{%- endmacro %}
