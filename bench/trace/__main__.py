"""`python -m bench.trace [--calls N]`: where the time of a call goes, and of an engine's life in the operator, hop by
hop, in microseconds."""

from __future__ import annotations

import argparse
import sys

from bench import arguments
from bench.clean import end_on_signals
from bench.trace import call, life


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.trace", description=__doc__)
    parser.add_argument("--calls", type=arguments.count, default=200, help="of each way, one at a time (default 200)")
    parser.add_argument("--engines", type=arguments.count, default=30, help="lives in the operator (default 30)")
    options = parser.parse_args()
    end_on_signals()
    print("\n".join(call.trace(options.calls)), flush=True)
    print("\n".join(life.trace(options.engines)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
