"""People as data: skeletons, records, rendered scenes, loaders, packs, heatmaps, pictures (Section IV-A.1)."""
