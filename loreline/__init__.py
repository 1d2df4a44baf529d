"""Loreline: a dbt-style, SQL-first lakehouse for an AI team's knowledge and conversations."""

__version__ = "0.1.0"
