"""A recurrent network that reads points and answers with places among them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.heads.pointer import Combine, PointerHead

State = tuple[Tensor, Tensor]


class PointerNetwork(nn.Module):
    """An LSTM that reads points, one that answers, and a pointer head between them; the end is one more position.

    What the second reads is the point chosen last, a learnt one at first. Places are 0 to n - 1, and n is the end.

    Args:
        width: of both LSTMs' states.
        features: numbers of a point.
        combine: how the head compares, "additive" or "dot".
        both_ways: whether points are read from the last to the first, too, half of the width each way: then all of
            them bear on what each position is. The paper's network reads once.
        once: whether a point is chosen at most once in an answer; then the chosen ones are masked, in training, too.

    Raises:
        ValueError: if an option of the head is out of range, or an odd width is to be shared.

    Example:
        >>> import torch
        >>> from manymax.models.pointer_network import PointerNetwork
        >>> model, points = PointerNetwork(16), torch.rand(3, 7, 2)
        >>> model(points, torch.zeros(3, 4, dtype=torch.int64)).shape
        torch.Size([])
        >>> model.search(points, steps=5, beams=3).shape
        torch.Size([3, 5])

    Source:
        Vinyals, Fortunato and Jaitly, 2015, Pointer Networks, arXiv:1506.03134.
    """

    def __init__(
        self,
        width: int = 128,
        features: int = 2,
        *,
        combine: Combine = "additive",
        both_ways: bool = False,
        once: bool = False,
    ) -> None:
        super().__init__()
        self.once = once
        if both_ways and width % 2:
            raise ValueError(f"width: expected an even number to share between two ways, got {width}")
        size = width // 2 if both_ways else width
        self.encoder = nn.LSTM(features, size, batch_first=True, bidirectional=both_ways)
        self.decoder = nn.LSTM(features, width, batch_first=True)
        self.start = nn.Parameter(torch.zeros(features))
        self.end = nn.Parameter(torch.randn(width) * width**-0.5)
        self.head = PointerHead(width, 1, combine=combine)

    def read(self, points: Tensor) -> tuple[Tensor, State]:
        """Return the positions' features (B, n + 1, width), the end last, and the state after points (B, n, F)."""
        seen, (hidden, cell) = self.encoder(points)
        state = (hidden.transpose(0, 1).reshape(1, len(points), -1), cell.transpose(0, 1).reshape(1, len(points), -1))
        return torch.cat([seen, self.end.expand(len(points), 1, -1)], 1), state

    def answers(self, points: Tensor, places: Tensor, state: State) -> Tensor:
        """Return the second LSTM's features (B, T, width) when the places (B, T) are answered one after the other."""
        index = places[:, :-1].clamp(0, points.shape[1] - 1)  # what follows the end is not asked for
        chosen = points.gather(1, index[..., None].expand(-1, -1, points.shape[2]))
        out: Tensor = self.decoder(torch.cat([self.start.expand(len(points), 1, -1), chosen], 1), state)[0]
        return out

    def forward(self, points: Tensor, places: Tensor) -> Tensor:
        """Return the mean loss of answers (B, T), -100 where nothing is asked, to points (B, n, F)."""
        memory, state = self.read(points)
        answers, mask = self.answers(points, places, state), self.free(places, points.shape[1])
        return self.head(answers, places, memory=memory, mask=mask)  # type: ignore[no-any-return]

    def free(self, places: Tensor, count: int) -> Tensor | None:
        """Return which of n points and the end may be chosen at each step of answers (B, T), (B, T, n + 1)."""
        if not self.once:
            return None
        chosen = F.one_hot(torch.where(places < 0, count, places), count + 1)
        chosen[..., count] = 0
        return chosen.cumsum(1) - chosen == 0

    def scores(self, answers: Tensor, memory: Tensor) -> Tensor:
        """Return the scores of places (B, T, n + 1)."""
        return self.head.logits(answers, memory=memory)

    @torch.no_grad()
    def search(self, points: Tensor, steps: int, beams: int = 1, *, ends: bool = True) -> Tensor:
        """Return the likeliest answers found, (B, steps), with the end n from where it comes first.

        Args:
            points: (B, n, F).
            steps: places of an answer at most.
            beams: answers that are followed at once; 1 takes the likeliest place each time.
            ends: whether an answer may end before its last step.
        """
        batch, count, features = points.shape
        memory, state = self.read(points)
        memory, spread = memory.repeat_interleave(beams, 0), points.repeat_interleave(beams, 0)
        state = (state[0].repeat_interleave(beams, 1), state[1].repeat_interleave(beams, 1))
        total = torch.full((batch, beams), -torch.inf).index_fill(1, torch.tensor([0]), 0.0)
        free = torch.ones(batch * beams, count + 1, dtype=torch.bool)
        free[:, count] = ends
        found = torch.empty(batch * beams, 0, dtype=torch.int64)
        last = self.start.expand(batch * beams, 1, features)
        only_end = F.one_hot(torch.tensor(count), count + 1).bool()
        for _ in range(steps):
            out, state = self.decoder(last, state)
            logs = self.scores(out, memory)[:, 0].masked_fill(~free, -torch.inf).log_softmax(-1)
            over = (found == count).any(1)
            logs = torch.where(over[:, None], torch.where(only_end, 0.0, -torch.inf), logs)
            logs = logs.nan_to_num(nan=-torch.inf)  # of an answer that no one follows, with nothing left to choose
            best = (total[..., None] + logs.view(batch, beams, -1)).flatten(1).topk(beams)
            total, place = best.values, (best.indices % (count + 1)).flatten()
            parent = (best.indices // (count + 1) + beams * torch.arange(batch)[:, None]).flatten()
            state = (state[0][:, parent], state[1][:, parent])
            found, free = torch.cat([found[parent], place[:, None]], 1), free[parent]
            if self.once:
                free = free & ~(F.one_hot(place, count + 1).bool() & ~only_end)
            last = spread[torch.arange(len(place)), place.clamp_max(count - 1)][:, None]
        return found.view(batch, beams, steps)[:, 0]


class DictionaryNetwork(PointerNetwork):
    """The same with attention and a fixed dictionary of places: it answers for no more points than it was made for.

    Args:
        width: of both LSTMs' states.
        features: numbers of a point.
        largest: points at most.
        both_ways: as there.
        once: as there.

    Raises:
        ValueError: if there are more points, or an odd width is to be shared.

    Source:
        Bahdanau, Cho and Bengio, 2014, Neural Machine Translation by Jointly Learning to Align and Translate,
        arXiv:1409.0473.
    """

    def __init__(
        self, width: int = 128, features: int = 2, *, largest: int, both_ways: bool = False, once: bool = False
    ) -> None:
        super().__init__(width, features, both_ways=both_ways, once=once)
        self.largest = largest
        self.output = nn.Linear(2 * width, largest + 1)

    def words(self, answers: Tensor, memory: Tensor) -> Tensor:
        """Return scores of the dictionary (B, T, largest + 1), the end last."""
        context = self.head.logits(answers, memory=memory).softmax(-1) @ memory
        found: Tensor = self.output(torch.cat([answers, context], -1))
        return found

    def scores(self, answers: Tensor, memory: Tensor) -> Tensor:
        """Return the scores of the places that there are, (B, T, n + 1)."""
        count = memory.shape[1] - 1
        if count > self.largest:
            raise ValueError(f"points: expected at most {self.largest}, got {count}")
        words = self.words(answers, memory)
        return torch.cat([words[..., :count], words[..., -1:]], -1)

    def forward(self, points: Tensor, places: Tensor) -> Tensor:
        """Return the mean loss of answers (B, T), -100 where nothing is asked, to points (B, n, F)."""
        count = points.shape[1]
        if count > self.largest:
            raise ValueError(f"points: expected at most {self.largest}, got {count}")
        memory, state = self.read(points)
        words = self.words(self.answers(points, places, state), memory)
        wanted = torch.where(places == count, self.largest, places)
        free = self.free(wanted, self.largest)
        words = words if free is None else words.masked_fill(~free, -torch.inf)
        return F.cross_entropy(words.flatten(0, 1), wanted.flatten())
