"""Masked language modelling: predict the hidden tokens of a text (Devlin et al. 2019, arXiv 1810.04805).

The text is CPython's own documentation, which every Python carries, or what the user names; vocabulary, tokens and the
split into training and held-out text are the same for all seeds (`dynalab.tasks.text.encoding` says how), so one
threshold means the same for every run. Seeds differ in initialisation, in the windows of text that they are
trained on (stream `order`) and in the masks (stream `noise`); the stream `split` has no effect. Windows are
drawn with replacement, so there are no epochs. As in the published code, the number of masks in a sequence is
the rounded 15%. Deviations from BERT: no next-sentence task, no [CLS] and [SEP].

For comparison, `train_unigram_loss` and `test_unigram_loss` are recorded: the cross-entropy, on the same masked
places, of the distribution of single tokens in the training text (one added to every count). A network whose
loss is lower uses the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from dynalab.config.places import user_path
from dynalab.config.schema import require
from dynalab.core.batch import Batch, InputSpec
from dynalab.core.errors import ConfigError
from dynalab.tasks.base import TaskData

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dynalab.core.streams import Streams


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of `task=mlm`.

    Attributes:
        corpus: A text file or folder, or a list of them; None is CPython's documentation. Kept as absolute paths.
        vocabulary: Tokens of the byte-pair vocabulary at most, the 256 bytes and [MASK] among them.
        length: Tokens of a sequence, L.
        mask_fraction: Share of a sequence's places that are predicted, rounded to M places, at least one.
        test_fraction: Share of the text that is held out: one block of k, with k = 1 / share rounded.
    """

    # Fields that enter the identity by `fingerprint`, not by their value: a corpus is its text, not its path.
    by_content: ClassVar[tuple[str, ...]] = ("corpus",)

    name: str = "mlm"
    corpus: Any = None
    vocabulary: int = 1024
    length: int = 32
    mask_fraction: float = 0.15
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.corpus is not None:
            paths = [self.corpus] if isinstance(self.corpus, str) else self.corpus
            listed = isinstance(paths, list | tuple) and len(paths) > 0
            whole = listed and all(isinstance(path, str) and path for path in paths)
            require(whole, "task.corpus", self.corpus, "null, a text file or folder, or a list of them")
            # Workers may run in another folder, and the ensemble may be continued from another.
            absolute = [str(user_path(x).absolute()) for x in paths]
            object.__setattr__(self, "corpus", absolute)
        if not 257 < self.vocabulary <= 1 << 20:
            raise ConfigError(
                f"task.vocabulary={self.vocabulary}: must be an integer from 258 (256 bytes, [MASK] and a merge) "
                f"to {1 << 20}"
            )
        if not 2 <= self.length <= 4096:
            raise ConfigError(f"task.length={self.length}: must be an integer from 2 to 4096")
        if not 0.0 < self.mask_fraction < 1.0:
            raise ConfigError(
                f"task.mask_fraction={self.mask_fraction}: must lie between 0 and 1, both excluded"
            )
        if not 0.0 < self.test_fraction <= 0.5:
            raise ConfigError(
                f"task.test_fraction={self.test_fraction}: must lie between 0 (excluded) and 0.5"
            )

    def idle_streams(self, full: bool) -> dict[str, str]:
        """Return the streams that nothing is drawn from, and why."""
        return {"split": "task=mlm holds out the same text for every run", **({"order": ""} if full else {})}

    def fingerprint(self) -> dict[str, str]:
        """Return a hash of the text, which stands for it in an ensemble's identity; raises where there is none."""
        from dynalab.tasks.text.corpus import digest

        return {"corpus": digest(self.corpus)}

    def in_words(self) -> dict[str, object]:
        """Return what the nulls of a configuration mean, by key."""
        return {"task.corpus": "CPython's documentation"}


@dataclass(frozen=True)
class MaskedLanguage:
    """The task; implements `dynalab.tasks.base.Task`.

    Attributes:
        config: The task's keys.
        spec: Kind `tokens`: inputs are L tokens and then the M places to predict, `shape` is (L, M); outputs are
            wanted for these places, shape (B, M, classes).
    """

    config: Config
    spec: InputSpec = field(init=False)

    def __post_init__(self) -> None:
        """Tokenise the corpus and derive the input specification."""
        from dynalab.tasks.text.masking import masked_places

        config = self.config
        size = len(self.tokens.vocabulary)
        masked = masked_places(config.length, config.mask_fraction)
        spec = InputSpec(kind="tokens", symbols=size, classes=size, shape=(config.length, masked))
        object.__setattr__(self, "spec", spec)

    @cached_property
    def tokens(self) -> Any:
        """The corpus, a `dynalab.tasks.text.encoding.Tokens`."""
        from dynalab.tasks.text.tokens import require_length, tokens

        config = self.config
        corpus = None if config.corpus is None else tuple(config.corpus)
        found = tokens(corpus, config.vocabulary, config.test_fraction)
        require_length(corpus, found, config.length)
        return found

    @cached_property
    def unigram(self) -> Tensor:
        """Log-probabilities of single tokens in the training text, (classes,), float64; one is added to each count."""
        import torch

        counts = torch.from_numpy(self.tokens.counts).to(torch.float64) + 1.0
        counts[self.tokens.vocabulary.mask] = 0.0
        return (counts / counts.sum()).log()

    def data(
        self,
        streams: Sequence[Streams],
        *,
        batch_size: int | None,
        eval_size: int | None,
        device: torch.device,
    ) -> TaskData:
        """Prepare the text for every run; see `dynalab.tasks.base.Task`."""
        from dynalab.tasks.text.windows import Windows

        length, masked = self.spec.shape
        return Windows(self.tokens, streams, length, masked, batch_size, eval_size, device)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return each run's mean cross-entropy (S,) over the masked places, from outputs (S, B, M, C)."""
        from torch.nn.functional import cross_entropy

        flat = cross_entropy(outputs.flatten(0, 2), batch.targets.flatten(), reduction="none")
        return flat.view(len(batch.targets), -1).mean(1)

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `accuracy` on the masked places and the `unigram_loss` there; (S,), float64."""
        import torch

        right = (outputs.max(3).indices == batch.targets).to(torch.float64)
        alone = -self.unigram.to(outputs.device)[batch.targets]
        return {"accuracy": right.flatten(1).mean(1), "unigram_loss": alone.flatten(1).mean(1)}


def build(config: Config) -> MaskedLanguage:
    """Build the task that `config` describes; tokenises the corpus, and raises `ConfigError` where it is too short."""
    return MaskedLanguage(config)
