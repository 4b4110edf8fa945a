"""Scripts that measure Sluice, and the sample video that the demo shows it with."""
