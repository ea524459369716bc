"""Moving bytes from providers into files: pacing, movers, workers."""
