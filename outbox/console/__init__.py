"""The operator's commands: what they ask of a driver, and how they show it to people (rich) and machines (JSON)."""
