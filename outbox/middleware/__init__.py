"""The links of the handler stack, one file per concern."""
