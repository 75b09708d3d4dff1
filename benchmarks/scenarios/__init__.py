"""One question per file; `benchmarks.catalogue` lists them."""
