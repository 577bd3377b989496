"""Where the time of a call goes, hop by hop.

The product's code holds no tracing: `launch` wraps its functions in processes that benchmarks start. Must not judge
what it measured.
"""
