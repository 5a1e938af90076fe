"""QEmbedding: nn.Embedding whose rows are decoded from packed codes."""

from __future__ import annotations

import torch
from torch import nn

from ..qtensor import QTensor
from .qmodule import QModule
from .row_weight import RowWeight


class QEmbedding(QModule):
    """Rows of a weight in 1 to 8 bits, by index. Called like nn.Embedding; only the rows asked for are decoded.

    No gradients: an embedding's input is an index, and quantized weights are not trained.

    Attributes:
        num_embeddings, embedding_dim: N and K.
        padding_idx: as in nn.Embedding; kept for those who read it.
        dtype: of the output. Dtype conversions of the module change it.
    """

    float_type = nn.Embedding
    prepared_type = RowWeight

    @classmethod
    def from_qtensor(cls, q: QTensor, padding_idx: int | None = None, dtype: torch.dtype = torch.float32) -> QEmbedding:
        """A layer with the rows of q, (N, K)."""
        layer = cls._from_prepared(RowWeight(q, None), None)
        layer.padding_idx, layer.dtype = padding_idx, dtype
        return layer

    def _init_from(self, prepared: RowWeight, bias: None) -> None:
        super()._init_from(prepared, bias)
        self.num_embeddings, self.embedding_dim = prepared.shape
        self.padding_idx, self.dtype = None, torch.float32

    def _take_shape(self, like: nn.Module) -> None:
        self.padding_idx = like.padding_idx
        self.dtype = like.dtype if isinstance(like, QEmbedding) else like.weight.dtype

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        rows = self.prepared.rows(index.reshape(-1))
        return rows.to(self.dtype).reshape(*index.shape, self.embedding_dim)

    def _apply(self, fn, recurse=True):
        self.dtype = fn(torch.zeros(0, dtype=self.dtype)).dtype
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, {self._spec_repr()}"
