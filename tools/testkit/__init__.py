"""What tests, e2e and bench share: real parts started for a test, fakes for faults, and behaviours that hold on both.

Must not know tests, e2e or bench.
"""
