"""What methods of tables refuse before they train."""

from __future__ import annotations

import pytest

from ssl_zoo import build, config
from ssl_zoo.errors import ConfigError


def built(*words: str) -> None:
    cfg = config.load(["data=synthetic_table", "data.source.samples=32", "data.batch_size=8", *words])
    config.quick_check(cfg)
    build.check_signatures(cfg)
    build.build_method(cfg, build.build_data(cfg).info)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("method=vime", "table.numbers=standard"), "^method=vime rebuilds numbers from 0 to 1, .*=minmax"),
        (("method=vime", "augmentation=table"), "the first one, which is not corrupted, .*augmentation=vime has"),
        (("method=vime", "augmentation=scarf", "augmentation.views.1.ops=[]"), "table/corrupt changed in its second"),
        (("method=vime_semi",), "backbone.weights=null: the encoder of VIME's second half stays as it is"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(*words)


def test_what_they_were_made_for_is_taken() -> None:
    for words in (("method=vime",), ("method=scarf",), ("method=vime_semi", "method.frozen=false")):
        built(*words)
