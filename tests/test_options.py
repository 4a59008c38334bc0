"""Fields with checks, on a small schema."""

import dataclasses

import pytest

from solo_dist import options
from solo_dist.errors import ConfigError
from solo_dist.options import bounded, checked, choice


def _refuse_b(option, value):
    if "b" in value:
        raise ConfigError(f"{option}={value} holds b.")


@dataclasses.dataclass
class Section:
    count: int = bounded(1, at_least=1)
    share: float = bounded(0.5, above=0, below=1)
    kind: str = choice("a", "b")
    pairs: tuple = checked((), _refuse_b)
    least: int = 0
    most: int = 9

    def validate(self):
        if self.least > self.most:
            raise ConfigError("least is above most.")


@dataclasses.dataclass
class Schema:
    section: Section = dataclasses.field(default_factory=Section)
    seed: int = 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "section.count=0 must be at least 1."),
        ({"count": "2"}, "section.count=2 must be at least 1."),
        ({"count": True}, "section.count=True must be at least 1."),
        ({"share": 1.0}, "section.share=1.0 must be above 0 and below 1."),
        ({"share": float("nan")}, "section.share=nan must be above 0 and below 1."),
        ({"kind": "c"}, "section.kind='c' is not one of a, b."),
        ({"pairs": ["a", "b"]}, "section.pairs=('a', 'b') holds b."),
        ({"least": 10}, "least is above most."),
    ],
)
def test_a_value_that_cannot_work_is_named(values, message):
    with pytest.raises(ConfigError) as refused:
        options.check(Schema(Section(**values)))
    assert str(refused.value) == message


def test_lists_become_tuples():
    schema = Schema(Section(pairs=[[1, 2], [3, [4]]]))
    options.check(schema)
    assert schema.section.pairs == ((1, 2), (3, (4,)))


def test_values_come_back_under_their_new_names():
    values = {"section": {"amount": 3, "pairs": [[1, 2]]}, "seed": 5}
    expected = Schema(Section(count=3, pairs=((1, 2),)), seed=5)
    assert options.from_values(Schema, values, {"section.amount": "count"}) == expected
    with pytest.raises(ConfigError, match="There is no option section.amount; known are count, share"):
        options.from_values(Schema, values, {})
