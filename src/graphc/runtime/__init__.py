"""Plan to results: memory, threads, linking of machine code, launching, the on-disk cache of objects."""
