"""The nouns that flow through the compiler: operators, tensor programs, loop programs, and their text."""
