"""People as data: skeletons, records, loaders, packs, heatmaps, pictures (Section IV-A.1)."""
