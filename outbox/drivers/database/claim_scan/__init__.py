"""Where the claim index is scanned for claimable jobs."""
