"""Long runs by hand; the tests run each for a few seconds."""
