"""Result sets: where they are read, and the forms they are given in. Must not know who may read them."""
