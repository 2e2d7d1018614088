"""What several errors tell to do."""

from __future__ import annotations

from typing import Final

GET_AGAIN: Final = "Get the file again from where it was made."

# A file that is whole, and does not come back here.
OPEN_ELSEWHERE: Final = (
    "Open it with the libraries that wrote it, whose versions `inspect` tells, or write it again with these."
)
