"""Output: the folder that a run of prepare writes to, here or at an address, and the index that ends it."""
