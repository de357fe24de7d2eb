"""Alembic's environment and the ledger's revisions, shipped in the wheel.

A revision's file is named NNNN_what.py and its id is NNNN, so that the newest is known by its name.
"""
