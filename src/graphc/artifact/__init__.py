"""Plan <-> file.  A loaded file cannot hurt: no pickle, every byte is hashed, native code runs only when this user signed it."""
