"""The HTTP API over a Unix socket; docs/api.md is its contract.

The rule it protects: who asks is the uid that the kernel reported for the connection, never
anything that travelled over it.
"""
