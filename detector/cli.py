"""What every command line here shares: errors become one line and an exit code that scripts can trust."""

from __future__ import annotations

import sys
from collections.abc import Callable

from detector.errors import UnmaskError, UsageError


def run(main: Callable[[], int]) -> int:
    """Call `main` and return its exit code; 1 for a failure, 2 for wrong usage, 130 after Ctrl-C, never a stack trace for
    what a user can mend."""
    try:
        return main()
    except UsageError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    except UnmaskError as error:
        print(f"error: {error.message} [{error.code}]", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        return 1
