"""Policies in a database: a file for each, with its tables and its statements. `registry` knows all of them."""
