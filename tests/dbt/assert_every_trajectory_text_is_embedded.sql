-- A row is a text of a trajectory of which an embedding configuration has neither a vector nor a
-- reason why not.
{{ texts_without_vector(ref("trajectory_texts"), "texts.is_complete and not texts.is_deleted") }}
