"""The steps from sources to a registry. Each takes what the last one left, and none knows another."""
