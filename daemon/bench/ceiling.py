"""The ceiling of decoding: a token at batch 1 cannot be faster than its weights can be read.

The rule this module protects: the ceiling is never too low. The bandwidth is the best that is
published for the chip, and of the bytes only weights count, no keys and values of earlier tokens. A
figure above it is a measuring error, and is called one.
"""

from __future__ import annotations

from dataclasses import dataclass

# Above this share a figure counts as above the ceiling: below it are the rounded digits of
# published bandwidths.
TOLERANCE = 1.005


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """A measured rate, tokens per second, beside bytes read per token and bytes per second."""

    rate: float
    bytes_per_token: float | None
    bandwidth: float | None

    @property
    def tokens_per_second(self) -> float | None:
        """The ceiling; None where bytes or bandwidth are not known."""
        if not self.bytes_per_token or not self.bandwidth:
            return None
        return self.bandwidth / self.bytes_per_token

    @property
    def share(self) -> float | None:
        """The rate as a share of the ceiling."""
        ceiling = self.tokens_per_second
        return None if ceiling is None else self.rate / ceiling

    @property
    def is_exceeded(self) -> bool:
        """Whether the rate cannot be true."""
        return self.share is not None and self.share > TOLERANCE

    def complaint(self, whose: str) -> str | None:
        """Return a line about a rate above the ceiling; ``whose``: what was measured."""
        if not self.is_exceeded or not self.bytes_per_token or not self.bandwidth:
            return None
        return (
            f"{whose}: {self.rate:.4g} tok/s is above the ceiling of {self.tokens_per_second:.4g} "
            f"({self.bandwidth / 1e9:.4g} GB/s by {self.bytes_per_token / 1e9:.4g} GB a token), so "
            "it is a measuring error: of the rate, of the bytes or of the bandwidth"
        )
