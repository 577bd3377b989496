"""Pure decisions: what should be, from what is, and a clock. No I/O, no asyncio, no clients."""
