"""The queue in Redis: RQ shows what waits, the ledger says what is next.

Redis holds nothing that cannot be rebuilt from the ledger, and nothing in it is believed: an RQ job
carries a number, and whoever forges one can delay work but never run, cancel or change it.
"""
