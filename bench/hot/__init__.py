"""The paths that users wait on, measured on loopback against their floors.

Each module measures one of them. Must not change the product.
"""
