"""People that the project renders itself (Section IV-A.1): body, poses, surfaces, clothes, camera, places, and the photographs with their annotations."""
