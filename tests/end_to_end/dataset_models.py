"""Datasets made of real conversation tables, small enough to be frozen and rebuilt in a test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.end_to_end.forest import Json, assistant, call, chat, system, tool, user

CONFIG = """{{ config(materialized="table", schema="datasets", tags=["manual", "datasets"]) }}
"""

# A table of the same layer between the datasets and the conversations; it reads a seed, too.
POSITIVE = """
select
    nodes.branch_node_id as trajectory_id,
    nodes.root_node_id,
    nodes.theme_id,
    themes.title as theme,
    nodes.model,
    nodes.context_snapshot_id,
    nodes.response_snapshot_id,
    nodes.tools_hash,
    cast(nodes.depth as double) / 3 as score
from {{ ref("conversation_branch_nodes") }} as nodes
left join {{ ref("seed_themes") }} as themes on nodes.theme_id = themes.theme_id
where nodes.response_snapshot_id is not null
"""

SPLIT = """case abs(hash({root}) % 4)::bigint
        when 0 then 'test' when 1 then 'validation' else 'train'
    end as split"""

MESSAGE = """json_merge_patch(
        json_object('role', {m}.role, 'content', {m}.content),
        case when {m}.tool_calls is null then json('{{}}')
            else json_object('tool_calls', list_transform(
                json({m}.tool_calls)::json[],
                lambda c: json_object(
                    'id', 'call', 'type', 'function', 'function', json_object(
                        'name', c ->> '$.name', 'arguments', (c -> '$.arguments')::varchar
                    )
                )
            )) end,
        case when {m}.tool_call_id is null then json('{{}}')
            else json_object('tool_call_id', {m}.tool_call_id) end
    )"""

TALK = f"""
with positive as (select * from {{{{ ref("positive_topk_trajectories") }}}}),
talk as (
    select
        positive.*,
        [{MESSAGE.format(m="asked")}]::json as asked,
        [{MESSAGE.format(m="answered")}]::json as answered,
        asked.content as question,
        answered.content as answer,
        answered.token_count,
        tools.content as tools
    from positive
    inner join {{{{ ref("context_snapshots") }}}} as asking
        on positive.context_snapshot_id = asking.context_snapshot_id
    inner join {{{{ ref("messages") }}}} as asked on asking.message_hash = asked.message_hash
    inner join {{{{ ref("context_snapshots") }}}} as answering
        on positive.response_snapshot_id = answering.context_snapshot_id
    inner join {{{{ ref("messages") }}}} as answered
        on answering.message_hash = answered.message_hash
    left join {{{{ ref("request_attributes") }}}} as tools
        on positive.tools_hash = tools.attribute_hash
)
"""

SFT = (
    TALK
    + f"""
select
    trajectory_id as example_id,
    to_json(list_concat(asked::json[], answered::json[]))::varchar as messages,
    tools,
    theme_id,
    model,
    score,
    token_count,
    {SPLIT.format(root="root_node_id")},
    json_object('trajectory_id', trajectory_id)::varchar as provenance
from talk
"""
)

DPO = (
    TALK
    + f"""
select
    md5(a.trajectory_id || b.trajectory_id) as example_id,
    a.asked::varchar as prompt,
    a.answered::varchar as chosen,
    b.answered::varchar as rejected,
    a.tools,
    a.theme_id,
    1.0::double as margin,
    {SPLIT.format(root="a.root_node_id")},
    '{{{{}}}}' as provenance
from talk as a
inner join talk as b
    on a.context_snapshot_id = b.context_snapshot_id and a.trajectory_id < b.trajectory_id
""".replace("'{{}}'", "'{}'")
)

SUPPRESSION = (
    TALK
    + f"""
select
    trajectory_id as example_id,
    asked::varchar as prompt,
    answered::varchar as completion,
    false as label,
    case when tools is null then 'hallucination' else 'tool_misuse' end as negative_type,
    theme_id,
    {SPLIT.format(root="root_node_id")}
from talk
"""
)

UNLEARNING = (
    TALK
    + """
select
    trajectory_id as example_id,
    question,
    answer,
    case when hash(trajectory_id) % 2 = 0 then 'forget' else 'retain' end as partition,
    'train' as split
from talk
"""
)

MODELS = {
    "positive_topk_trajectories": POSITIVE,
    "sft_messages_dataset": SFT,
    "dpo_preference_dataset": DPO,
    "suppression_dataset": SUPPRESSION,
    "unlearning_dataset": UNLEARNING,
}
DATASETS = [name for name in MODELS if name.endswith("_dataset")]

DESCRIPTIONS = """
models:
  - name: sft_messages_dataset
    description: Answers worth learning from.
    columns:
      - name: messages
        description: What was asked and answered | as chat messages.
"""

TOOLS = [
    {"type": "function", "function": {"name": "search", "parameters": {"type": "object",
     "properties": {"query": {"type": "string"}}, "required": ["query"]}}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object",
     "properties": {}}}},
]  # fmt: skip
HOSTILE = '<script>alert(1)</script> \x1b[31m \u202e "quoted" | pipe\n# heading `code`'


def put_models(project: Path) -> None:
    """Replace the datasets of a copied project, and commit it to a git repository of its own."""
    for folder in ("models/datasets", "python_models/datasets", "tests/dbt"):
        shutil.rmtree(project / folder, ignore_errors=True)
    (project / "models" / "exposures.yml").unlink(missing_ok=True)
    # dbt does not get over unit tests whose models are gone from what it has parsed before.
    shutil.rmtree(project / "target", ignore_errors=True)
    folder = project / "models" / "datasets"
    folder.mkdir()
    for name, sql in MODELS.items():
        (folder / f"{name}.sql").write_text(CONFIG + sql)
    (folder / "_datasets__models.yml").write_text(DESCRIPTIONS)
    (project / ".gitignore").write_text("target/\nlogs/\n.user.yml\n__pycache__/\n")
    git(project, "init", "--quiet")
    commit(project)


def commit(project: Path) -> None:
    """Commit what the project's files are now."""
    git(project, "add", "--all")
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    git(project, *identity, "commit", "--quiet", "--message", "state")


def git(project: Path, *arguments: str) -> None:
    """Run git in a folder."""
    subprocess.run(["git", "-C", str(project), *arguments], check=True, capture_output=True)


def conversations(first: int = 0, count: int = 24) -> list[Json]:
    """Requests of which some are asked twice, some have tools, and one is hostile."""
    events = []
    for n in range(first, first + count):
        question = HOSTILE if n in (3, 4) else f"question {n}"
        history = [system("Be brief."), user(question)]
        places = {"at": 10 * n, "session": f"s{n}", "theme_id": f"theme {n % 3}"}
        if n % 3 == 0:
            asked = assistant(None, tool_calls=[call(f"c{n}", "search", '{"query": "x"}')])
            with_tools = {"tools": TOOLS, "model": f"m{n % 2}"}
            events.append(chat(f"t{n}", history, asked, request=with_tools, **places))
            history = [*history, asked, tool(f"c{n}", "found")]
            places["at"] += 1
            events.append(
                chat(f"u{n}", history, assistant(f"answer {n}"), request=with_tools, **places)
            )
        else:
            answers = [assistant(f"answer {n}"), assistant(f"another answer {n}")]
            events.append(chat(f"t{n}", history, *answers, **places))
    return events
