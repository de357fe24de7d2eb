"""The geometry of the contact sheet: how large its thumbnails are, and where the cursor goes.

The rule this module protects: thumbnails are as large as they can be while all pictures are seen at
once; where that would make them unrecognisable the sheet has pages.
"""

from __future__ import annotations

from dataclasses import dataclass

# Cells of the frame around a thumbnail, and of its label; the least that shows anything.
FRAME, LABEL = 2, 1
_LEAST_WIDTH = 14


@dataclass(frozen=True, kw_only=True)
class Grid:
    """``across`` by ``down`` places of ``width`` by ``height`` cells, frame and label included."""

    count: int
    across: int
    down: int
    width: int
    height: int

    @property
    def per_page(self) -> int:
        """Pictures on a page."""
        return self.across * self.down

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.count // self.per_page))

    @property
    def picture(self) -> tuple[int, int]:
        """Columns and rows of cells of a thumbnail itself."""
        return max(1, self.width - FRAME), max(1, self.height - FRAME - LABEL)

    def page_of(self, index: int) -> int:
        """Return the page that shows a picture."""
        return index // self.per_page

    def span(self, page: int) -> range:
        """Return the indices of the pictures of a page."""
        start = page * self.per_page
        return range(start, min(start + self.per_page, self.count))

    def moved(self, index: int, *, columns: int = 0, rows: int = 0, pages: int = 0) -> int:
        """Return the picture that is so far away; beyond an edge the cursor stays."""
        target = index + columns + rows * self.across + pages * self.per_page
        if pages or 0 <= target < self.count:
            return min(max(target, 0), self.count - 1)
        return index


def arrange(count: int, width: int, height: int) -> Grid:
    """Return the grid of ``count`` pictures in an area of cells, twice as high as wide."""
    most = max(1, width // _LEAST_WIDTH)
    grids = [_grid(count, across, width, height) for across in range(1, most + 1)]
    return next((grid for grid in grids if grid.per_page >= count), grids[-1])


def _grid(count: int, across: int, width: int, height: int) -> Grid:
    wide = max(1, width // across)
    wanted = max(1, (wide - FRAME) // 2) + FRAME + LABEL
    down = max(1, height // wanted)
    if across * down >= count:  # fewer rows may be needed than fit
        down = max(1, -(-count // across))
    high = min(wanted, max(1, height // down))
    return Grid(count=count, across=across, down=down, width=wide, height=high)
