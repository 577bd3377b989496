"""Result sets: reading them from agent or archive, and encoding them. Must not know who may read them."""
