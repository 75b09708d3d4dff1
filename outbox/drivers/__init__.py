"""What stores jobs. `base` is the contract; each package beside it is one kind of store."""
