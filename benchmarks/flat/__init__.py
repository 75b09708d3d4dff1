"""Whether a claim costs the same however much there is: the store is loaded step by step, and a claim measured at each.

`ground` is a store under load, `loads` are what it is loaded with, `cost` is what one claim of 100 jobs takes.
"""
