"""Takes what a process has made at its start out of the garbage collector's full collections.

Modules, classes and settings are some 150,000 objects that stay until the end. A full collection looks at each: 86 ms
of processor time in operator and gateway, in which the event loop stands still and everybody waits. Must not be called
while objects are made that go again.
"""

from __future__ import annotations

import gc


def freeze_startup_heap() -> None:
    """Call it once, when the process is about to serve. What was made until then is looked at no more; an object of it
    that is not used any more is freed as ever, if it is in no cycle."""
    gc.collect()
    gc.freeze()
