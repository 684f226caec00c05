"""Graph -> kernels and a buffer plan.  Fusion lives here, once, for every backend."""
