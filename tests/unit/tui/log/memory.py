"""A log in memory that is read as the client reads one."""

from __future__ import annotations

from daemon.client.follow import Part


class MemoryLog:
    """Bytes that may grow; ``asked`` is what was asked for."""

    def __init__(self, content: bytes = b"", state: str = "running") -> None:
        self.content = content
        self.state = state
        self.asked: list[tuple[int, int]] = []

    def read(self, offset: int, wait: float, most: int) -> Part:
        """Answer as ``Client.read_log``, without waiting."""
        del wait
        self.asked.append((offset, most))
        size = len(self.content)
        start = max(0, size + offset) if offset < 0 else offset if offset <= size else 0
        data = self.content[start : start + most]
        return Part(data=data, offset=start + len(data), state=self.state, size=size)
