"""Distances that compare neighbourhoods: k-reciprocal encoding.

Zhong et al. 2017, https://arxiv.org/abs/1701.08398, in the form of ``compute_jaccard_distance`` in
spcl/utils/faiss_rerank.py of yxgeee/SpCL@01a486e. Everything is sparse: a sample shares neighbours with few others.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ssl_zoo.losses.precision import full_precision

BLOCK = 2**24  # similarities held at a time, 64 MB


@torch.no_grad()
@full_precision
def jaccard_distance(
    x: Tensor, k1: int = 30, k2: int = 6, device: torch.device | str | None = None
) -> sparse.csr_matrix:
    """``1 - |A and B| / |A or B|`` of the samples' weighted sets of k-reciprocal neighbours.

    Args:
        x: ``[N, D]`` unit rows.
        k1: Neighbours, the sample itself included, that may be reciprocal; at most N are there.
        k2: Neighbours over which the sets are averaged (local query expansion); 1: none.
        device: Where neighbours are searched; None: where ``x`` lies. The rest runs on the CPU.

    Returns:
        ``[N, N]`` float32; what is not stored is 1 (nothing in common), and stored zeros are distances of 0.

    Raises:
        ValueError: If k1 or k2 is not positive.
    """
    if k1 < 1 or k2 < 1:
        raise ValueError(f"jaccard_distance: k1 and k2 must be 1 or more, got {k1} and {k2}")
    ranked = _neighbours(x, min(k1, len(x)), device)  # [N, k1]
    sets = _expanded(_reciprocal(ranked[:, : k1 + 1]), _reciprocal(ranked[:, : round(k1 / 2) + 1]))
    weights = _softmax_weights(sets, x.detach().float().cpu().numpy())
    if k2 > 1:
        near = ranked[:, :k2]
        weights = (_incidence(near) @ weights / np.float32(near.shape[1])).tocsr()
    return _jaccard(weights.astype(np.float32))


def _neighbours(x: Tensor, k: int, device: torch.device | str | None) -> np.ndarray:
    """``[N, k]`` rows with the largest products, best first, the sample itself among them."""
    x = x.detach().float().to(x.device if device is None else device)
    found = []
    for rows in torch.arange(len(x), device=x.device).split(max(BLOCK // len(x), 1)):
        products = (x[rows] @ x.T).scatter(1, rows[:, None], torch.inf)  # itself first, among copies of it too
        found.append(products.topk(k, dim=1).indices.cpu())
    return torch.cat(found).numpy()


def _incidence(columns: np.ndarray) -> sparse.csr_matrix:
    """``[N, N]`` with ones where row ``i`` names a column."""
    n, k = columns.shape
    ones = np.ones(n * k, dtype=np.float32)
    return sparse.csr_matrix((ones, columns.reshape(-1), np.arange(n + 1) * k), shape=(n, n))


def _reciprocal(ranked: np.ndarray) -> sparse.csr_matrix:
    """Ones where two samples are among each other's neighbours."""
    forward = _incidence(ranked)
    return forward.multiply(forward.T).tocsr()


def _expanded(sets: sparse.csr_matrix, half: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each set with the sets of those members that share more than two thirds of their own half as large one."""
    size = np.asarray(half.sum(1), dtype=np.float64).reshape(-1)  # [N]
    shared = sets.multiply(sets @ half.T).tocoo()  # (i, candidate): members of half[candidate] that are in sets[i]
    keep = shared.data > 2 / 3 * size[shared.col]
    chosen = sparse.csr_matrix((shared.data[keep], (shared.row[keep], shared.col[keep])), shape=sets.shape)
    union = (sets + chosen @ half).tocsr()
    union.sort_indices()
    return union


def _softmax_weights(sets: sparse.csr_matrix, x: np.ndarray) -> sparse.csr_matrix:
    """Softmax of the negative squared distances over the members of each set."""
    row = np.repeat(np.arange(len(x)), np.diff(sets.indptr))
    pairs = zip(_pieces(row), _pieces(sets.indices), strict=True)
    products = np.concatenate([np.einsum("nd,nd->n", x[i], x[j]) for i, j in pairs])
    logits = 2 * products - 2
    logits -= np.maximum.reduceat(logits, sets.indptr[:-1])[row]  # no set is empty: a sample is its own neighbour
    weights = np.exp(logits)
    weights /= np.add.reduceat(weights, sets.indptr[:-1])[row]
    return sparse.csr_matrix((weights, sets.indices, sets.indptr), shape=sets.shape)


def _pieces(x: np.ndarray, size: int = 2**17) -> list[np.ndarray]:
    return [x[start : start + size] for start in range(0, len(x), size)]


def _jaccard(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """The sums of minima of each row with all rows that share a member, one row at a time."""
    n = weights.shape[0]
    columns = weights.tocsc()
    lengths = np.diff(columns.indptr)
    data, indices = [], []
    for i in range(n):
        own = slice(weights.indptr[i], weights.indptr[i + 1])
        members, weight = weights.indices[own], weights.data[own]
        count = lengths[members]
        # Positions of the members' columns, one after the other.
        where = np.repeat(columns.indptr[members] - np.concatenate([[0], count.cumsum()[:-1]]), count)
        where += np.arange(count.sum())
        least = np.minimum(np.repeat(weight, count), columns.data[where])
        common = np.bincount(columns.indices[where], least, minlength=n).astype(np.float32)
        others = common.nonzero()[0]
        indices.append(others)
        data.append(np.maximum(1 - common[others] / (2 - common[others]), 0))
    indptr = np.concatenate([[0], np.cumsum([len(part) for part in indices])])
    return sparse.csr_matrix((np.concatenate(data), np.concatenate(indices), indptr), shape=(n, n))
