"""Models whose published weights the examples load."""
