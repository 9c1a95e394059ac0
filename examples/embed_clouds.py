"""Features of your own clouds: python examples/embed_clouds.py ENCODER OUT.npz CLOUD [CLOUD ...]"""

from __future__ import annotations

import sys

import numpy as np

import pixcloud
from pixcloud.data.files import read_cloud


def embed_files(encoder: str, out: str, files: list[str]) -> np.ndarray:
    """One feature vector per file, (files, D); clouds may have any number of points."""
    model = pixcloud.load_encoder(encoder)
    clouds = (read_cloud(file, on_nonfinite="drop").points for file in files)
    features = np.stack([model.embed(points).numpy() for points in clouds])
    np.savez(out, features=features, files=files)
    return features


if __name__ == "__main__":
    print(embed_files(sys.argv[1], sys.argv[2], sys.argv[3:]).shape)
