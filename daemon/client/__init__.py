"""The Python interface to a studioq daemon, for scripts, notebooks, the command line and the TUI.

    from daemon.client import Client

    with Client(autostart=True) as studio:
        data = studio.training_data("rows.jsonl")
        job = studio.submit("train", {"model": "smollm2", "data": data}, name="first try")
        studio.wait(job["id"])
        studio.fetch(job["id"], to="results")

The rule it protects: the client is thin. Standard library only, no model of the daemon's answers
beyond their types (``daemon.client.answers``), and nothing the command line can do that it cannot.
"""

from daemon.client.client import Client
from daemon.client.follow import ENDED, Part

__all__ = ["ENDED", "Client", "Part"]
