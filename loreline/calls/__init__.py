"""Calls of chat models, as replays and judges make them.

`endpoint` asks, `budget` says how much at once and in all, `kept` makes sure that an answer that
was paid for is not lost.
"""
