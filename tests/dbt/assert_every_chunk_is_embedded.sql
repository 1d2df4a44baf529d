-- A row is a text of which an embedding configuration has neither a vector nor a reason why not.
{{ texts_without_vector(ref("chunks")) }}
