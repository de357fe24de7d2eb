"""The ledger: the one record of users, jobs, attempts, metrics, artifacts and inputs.

A job is what a user asked for; an attempt is one try of running it. Every write of a running
attempt carries the attempt's fencing number (its row's id, which only grows), so that an attempt
that was given up can write nothing more. States change only through the functions of ``jobs`` and
``attempts``, which check the old state in the same statement that sets the new one.

SQLite-specific SQL stays in this package, so that PostgreSQL can take its place.
"""
