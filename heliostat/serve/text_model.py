"""A packaged model that continues texts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, Field
from torch import nn

from heliostat.data.columns import InputColumn
from heliostat.errors import ServingFailure
from heliostat.serve.loading import PackagedModel, load_package
from heliostat.train.text import MAX_TOKENS, Sampling, TextTask


class TextRequest(Sampling):
    """A text to continue, and how."""

    model_config = ConfigDict(strict=True)

    prompt: str = Field(min_length=1, examples=["ROMEO:\n"])
    """What the answer goes on from."""


class ServedText:
    """A model ready to continue texts."""

    def __init__(self, spec: PackagedModel, task: TextTask, model: nn.Module) -> None:
        self.spec = spec
        self._task = task
        self._model = model

    @classmethod
    def load(cls, path: Path, *, dedicated: bool = False) -> Self:
        """The model of the package at `path`; see `load_package` for `dedicated`.

        Raises:
            ServingFailure: there is no package, its parts do not fit together, or its task does not generate.
            ReferenceNotFound: its code does not import.
        """
        loaded = load_package(path, dedicated=dedicated)
        if not isinstance(loaded.task, TextTask):
            raise ServingFailure(
                "a task on data without features can be served only if it continues texts",
                where=loaded.spec.task,
                got=type(loaded.task).__name__,
                next_step="subclass heliostat.train.text.TextTask, or name data.features and data.label",
            )
        return cls(loaded.spec, loaded.task, loaded.model)

    @property
    def inputs(self) -> tuple[InputColumn, ...]:
        """What a request consists of, for those who send tables."""
        number = {"kind": "number", "nullable": True}
        return (
            InputColumn(name="prompt", kind="string", example="ROMEO:\n"),
            InputColumn(name="max_tokens", kind="integer", nullable=True, minimum=1, maximum=MAX_TOKENS, example=20),
            InputColumn.model_validate({"name": "temperature", "minimum": 0, "example": 0.8, **number}),
            InputColumn(name="top_k", kind="integer", nullable=True, minimum=0, example=40),
            InputColumn(name="seed", kind="integer", nullable=True, minimum=0, example=1),
        )

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[str]:
        """The text after `prompt`, in pieces as they come.

        Raises:
            UserError: the prompt, before the first piece.
        """
        return self._task.generate(self._model, prompt, sampling)

    def predict(self, rows: Sequence[Mapping[str, object]]) -> list[str]:
        """Answer rows of `inputs`, a None standing for the default.

        Raises:
            UserError: a prompt.
            ValidationError: a row that is no request.
        """
        return [self._answer({name: value for name, value in row.items() if value is not None}) for row in rows]

    def _answer(self, row: Mapping[str, object]) -> str:
        request = TextRequest.model_validate(row, strict=False)
        return "".join(self.generate(request.prompt, request))
