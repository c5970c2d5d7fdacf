"""Made-up catalogues."""
