"""Files of tensors: PyTorch's two layouts, their pickles without pickle, and shards.  Nothing that stands in a file is ever run."""
