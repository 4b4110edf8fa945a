"""Plain ways to find speakers among voice windows, to compare with: scikit-learn's clusterings, turns cut midway."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]
Spoken = list[tuple[float, float, int]]  # start, end in seconds, speaker

LIKE = 0.42  # mean cosine at which plain clustering stops: pyannote.audio 2's for ECAPA
KEPT = 0.05  # of each window's cosines, for spectral clustering
MOST_SPEAKERS = 30  # among which the gap between eigenvalues is looked for


@dataclass(frozen=True, eq=False)
class Windows:
    """What a method is given."""

    starts: Doubles  # [n] seconds
    ends: Doubles  # [n] seconds
    vectors: npt.NDArray[np.float32]  # [n, d]
    speakers: int  # that there are, for those who are told


def agglomerative(windows: Windows) -> tuple[Ints, Spoken]:
    """Plain agglomerative clustering."""
    from sklearn.cluster import AgglomerativeClustering

    plain = AgglomerativeClustering(
        n_clusters=None, distance_threshold=1.0 - LIKE, metric="cosine", linkage="average", compute_full_tree=True
    )
    labels: Ints = plain.fit_predict(windows.vectors).astype(np.int32)
    return labels, midway(windows, labels)


def spectral(windows: Windows) -> tuple[Ints, Spoken]:
    """Spectral clustering that finds the number of speakers itself."""
    affinity = _affinity(windows)
    return _spectral(windows, affinity, _eigengap(affinity))


def spectral_told(windows: Windows) -> tuple[Ints, Spoken]:
    """Spectral clustering that knows it."""
    return _spectral(windows, _affinity(windows), windows.speakers)


def _affinity(windows: Windows) -> Doubles:
    cosines = windows.vectors.astype(np.float64) @ windows.vectors.astype(np.float64).T
    least = np.quantile(cosines, 1.0 - KEPT, axis=1, keepdims=True)
    kept = np.where(cosines >= least, np.maximum(cosines, 0.0), 0.0)
    affinity: Doubles = (kept + kept.T) / 2
    return affinity


def _eigengap(affinity: Doubles) -> int:
    """The number of speakers before the largest gap between eigenvalues of the normalised affinity."""
    from scipy.sparse.linalg import eigsh

    scale = 1.0 / np.sqrt(np.maximum(affinity.sum(1), 1e-9))
    start = np.ones(len(affinity))  # or it would be drawn
    values = eigsh(affinity * scale[:, None] * scale, k=MOST_SPEAKERS + 1, v0=start, return_eigenvectors=False)
    descending = np.sort(values)[::-1]
    return int(np.argmax(descending[:-1] - descending[1:])) + 1


def _spectral(windows: Windows, affinity: Doubles, speakers: int) -> tuple[Ints, Spoken]:
    from sklearn.cluster import SpectralClustering

    plain = SpectralClustering(n_clusters=speakers, affinity="precomputed", random_state=0, assign_labels="kmeans")
    labels: Ints = plain.fit_predict(affinity).astype(np.int32)
    return labels, midway(windows, labels)


def midway(windows: Windows, labels: Ints) -> Spoken:
    """Turns where each moment is its nearest window's, by its middle, among those that share sound."""
    spoken: Spoken = []
    end_before = -1.0
    middles = (windows.starts + windows.ends) / 2
    for index, (start, end) in enumerate(zip(windows.starts.tolist(), windows.ends.tolist(), strict=True)):
        if start < end_before:
            change = float(middles[index - 1] + middles[index]) / 2
            spoken[-1] = (spoken[-1][0], change, spoken[-1][2])
            start = change
        spoken.append((start, end, int(labels[index])))
        end_before = end
    return spoken
