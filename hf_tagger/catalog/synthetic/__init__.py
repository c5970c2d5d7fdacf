"""Made-up catalogues and exports."""
