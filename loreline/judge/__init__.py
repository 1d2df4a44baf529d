"""Judgements by models: which categories a trajectory shows, and which of two responses is better.

`configurations` says who judges and how, `selection` what, `prompts` writes the request, `verdicts`
reads the answer, `journal` keeps it, `run` does all of that.
"""
