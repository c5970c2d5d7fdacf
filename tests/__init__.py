"""A package by name: else one called tests, which some distribution leaves in site-packages, is taken for it."""
