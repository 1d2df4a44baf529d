{# The columns of trajectory_features that rules and scores may name. #}
{% macro trajectory_measures() -%}
  {{- return([
      "turn_count", "message_count", "user_message_count", "tool_call_count", "tool_result_count",
      "tool_error_count", "tool_error_share", "repeated_call_count", "retry_count",
      "recovery_count", "total_tokens", "completion_tokens", "duration_ms", "prompt_length",
      "answer_length", "claim_count", "ungrounded_count", "ungrounded_share"
  ]) -}}
{%- endmacro %}
