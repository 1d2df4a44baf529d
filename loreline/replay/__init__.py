"""Asking again: what was asked at a node of the forest, of any model.

`contexts` reads what was asked, `plan` says which calls that makes and what they may cost, `run`
makes them, `journal` remembers each answer so that none is paid for twice.
"""
