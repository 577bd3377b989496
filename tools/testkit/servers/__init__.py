"""Programs beside the product, each a process on loopback: started, given a port, ended. Must not use the product."""
