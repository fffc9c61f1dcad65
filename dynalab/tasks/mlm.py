"""Masked language modelling: predict the hidden tokens of a text (Devlin et al. 2019, arXiv 1810.04805).

The text is CPython's own documentation, which every Python carries, or what the user names; vocabulary, tokens and the
split into training and held-out text are the same for all seeds (`dynalab.tasks.text.encoding` says how), so one
threshold means the same for every run. Seeds differ in initialisation, in the windows of text that they are
trained on (stream `order`) and in the masks (stream `noise`); the stream `split` has no effect. Windows are
drawn with replacement, so there are no epochs. As in the published code, the number of masks in a sequence is
the rounded 15%. Deviations from BERT: no next-sentence task, no [CLS] and [SEP].

For comparison the loss of single tokens is recorded (`unigram_loss`): a network whose loss is lower uses the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from dynalab.config.keys import Section, key
from dynalab.config.places import user_path
from dynalab.core.batch import Batch, InputSpec
from dynalab.core.columns import Column, Columns
from dynalab.tasks import classification
from dynalab.tasks.base import TaskData

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dynalab.core.streams import Streams


COLUMNS: Columns = {
    "loss": Column(
        "mean over the masked places of -ln p(token), p being softmax (`cross_entropy`) or `stablemax` of the outputs",
        "nats a masked token",
    ),
    "accuracy": Column("share of the masked places whose largest output is the token's", "1"),
    "unigram_loss": Column(
        "the loss, on the same places, of the distribution of single tokens in the training text, one added to every "
        "count",
        "nats a masked token",
    ),
}

TITLE = "Masked language model, sequences of {length} tokens"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="task"):
    """Configuration of `task=mlm`; the corpus is kept as absolute paths."""

    # Fields that enter the identity by `fingerprint`, not by their value: a corpus is its text, not its path.
    by_content: ClassVar[tuple[str, ...]] = ("corpus",)

    # Its inputs are symbols, no numbers.
    symbols: ClassVar[bool] = True

    name: str = "mlm"
    corpus: Any = key(
        None,
        "the text; null: CPython's documentation",
        kind="a text file or folder, a list of them, or null",
    )
    # The least is 256 bytes, [MASK] and a merge.
    vocabulary: int = key(
        1024,
        "tokens of the byte-pair vocabulary at most, the 256 bytes and [MASK] among them",
        least=258,
        most=1 << 20,
    )
    length: int = key(32, "tokens of a sequence", least=2, most=4096)
    mask_fraction: float = key(
        0.15, "share of a sequence's places that are predicted, rounded, at least one", above=0, below=1
    )
    loss: str = key(
        "cross_entropy", f"loss; {classification.STABLEMAX}", one_of=tuple(classification.OF_LABELS)
    )
    test_fraction: float = key(
        0.1,
        "share of the text that is held out, the same for all seeds: one block of k, k being 1 / share rounded",
        above=0,
        most=0.5,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.corpus is not None:
            paths = [self.corpus] if isinstance(self.corpus, str) else self.corpus
            listed = isinstance(paths, list | tuple) and len(paths) > 0
            self._require(listed and all(isinstance(path, str) and path for path in paths), "corpus")
            # Workers may run in another folder, and the ensemble may be continued from another.
            absolute = [str(user_path(x).absolute()) for x in paths]
            object.__setattr__(self, "corpus", absolute)

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
    def _unigrams(self) -> dict[torch.device, Tensor]:
        """The same on every device that asked for it."""
        return {}

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
        """Return each run's mean loss (S,) over the masked places, from outputs (S, B, M, C)."""
        return classification.OF_LABELS[self.config.loss](outputs.flatten(1, 2), batch.targets.flatten(1))

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `accuracy` on the masked places and the `unigram_loss` there; (S,), float64."""
        import torch

        right = (outputs.max(3).indices == batch.targets).to(torch.float64)
        if outputs.device not in self._unigrams:
            self._unigrams[outputs.device] = self.unigram.to(outputs.device)
        alone = -self._unigrams[outputs.device][batch.targets]
        return {"accuracy": right.flatten(1).mean(1), "unigram_loss": alone.flatten(1).mean(1)}


def build(config: Config) -> MaskedLanguage:
    """Build the task that `config` describes; tokenises the corpus, and raises `ConfigError` where it is too short."""
    return MaskedLanguage(config)
