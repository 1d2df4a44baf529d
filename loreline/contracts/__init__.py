"""Contracts of what sources send: Open Data Contract Standard in, Great Expectations out.

`odcs` reads the YAML files that people edit, `payloads` makes columns of JSON payloads, `suite`
has Great Expectations judge them, `results` keeps the last word on each table, and `site` shows it.
"""
