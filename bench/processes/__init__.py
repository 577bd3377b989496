"""What benchmarks start or look at beside the product: a gateway, a bare kernel, processor time. Must not judge."""
