"""Every wrong word of a command line is named, with what was wanted and the nearest right name, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssl_zoo import build, config, sweeps
from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import height_width
from tests.helpers import CONF, METHODS, quickly


def message(argv: list[str], deep: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        cfg = config.load(argv)
        config.quick_check(cfg)
        if deep:
            build.check_signatures(cfg)
    return str(caught.value)


def test_a_misspelt_method() -> None:
    assert message(["method=bylo"]) == "method=bylo: there is no such method; did you mean 'byol'?"


def test_a_misspelt_key() -> None:
    wanted = "method.temprature: method has no 'temprature'; did you mean 'temperature'?"
    assert message(["method.temprature=0.1"]) == wanted


def test_a_misspelt_group_shows_the_nearest() -> None:
    assert "the configuration has no 'metod'; did you mean 'method'?" in message(["metod=byol"])


def test_all_wrong_names_at_once() -> None:
    text = message(["method=bylo", "data=cifar11", "trainer.max_epoch=3"])
    assert text.splitlines() == [
        "method=bylo: there is no such method; did you mean 'byol'?",
        "data=cifar11: there is no such data; did you mean 'cifar10'?",
        "trainer.max_epoch: trainer has no 'max_epoch'; did you mean 'max_epochs'?",
    ]


def test_a_word_where_a_number_belongs() -> None:
    text = message(["method.temperature=cold"], deep=True)
    assert text == "method.temperature='cold': SimCLR wants a number above 0, got str"


def test_wrong_values_deep_inside_are_found_all_at_once() -> None:
    text = message(["method.temperature=cold", "backbone.width=wide", "optimizer.values.lr.peak=high"], deep=True)
    for line in (
        "method.temperature='cold': SimCLR wants a number",
        "backbone.width='wide': resnet8 wants a whole number",
        "optimizer.values.lr.peak='high': WarmupCosine wants a number",
    ):
        assert line in text


def test_graphs_take_one_backward_pass_on_one_device() -> None:
    text = message(["trainer.compile=graphs", "trainer.accumulate=4", "trainer.devices=2", "method.grad_cache=8"])
    start = "trainer.compile=graphs takes one backward pass a step, on one device, got "
    assert text.splitlines() == [
        start + "trainer.accumulate=4; set trainer.accumulate=1, or trainer.compile=true",
        start + "method.grad_cache=8; set method.grad_cache=1, or trainer.compile=true",
        start + "trainer.devices=2; set trainer.devices=1, or trainer.compile=true",
    ]
    config.quick_check(config.load(["trainer.compile=graphs"]))


def test_another_word_for_compile() -> None:
    assert message(["trainer.compile=graph"]) == "trainer.compile=graph: wanted false, true, or graphs"


def test_a_batch_that_does_not_split() -> None:
    text = message(["data.batch_size=100", "trainer.devices=3"])
    assert "data.batch_size=100 (samples per step over all devices) does not divide by trainer.devices=3" in text
    assert text.endswith("= 3; try data.batch_size=99 or 102")


def test_a_missing_data_set(tmp_path: Path) -> None:
    text = message(["data=cifar10", f"data.root={tmp_path}"])
    assert f"data.root={tmp_path}: found no cifar-10-batches-py or data_batch_1 in {tmp_path}" in text
    assert "data.download=true" in text


def test_a_missing_folder() -> None:
    text = message(["data=folder", "data.root=/nonexistent"])
    assert "data.root=/nonexistent: there is no such folder" in text


def test_a_checkpoint_that_is_not_there() -> None:
    assert message(["resume=nowhere.ckpt"]).startswith("resume=nowhere.ckpt: there is no such file")


def test_too_few_and_too_many_views() -> None:
    text = message(["method=simclr", "augmentation=supervised"], deep=True)
    assert "gives 1 global view(s) and SimCLR needs at least 2" in text
    text = message(["method=simclr", "augmentation=swav/small_multicrop"], deep=True)
    assert "local view(s) and SimCLR takes at most 0" in text


def test_an_unknown_operation() -> None:
    text = message(["augmentation.views=[{size: 32, count: 2, ops: [{image/flop: {p: 0.5}}]}]"], deep=True)
    assert "augmentation.views.0.ops: " in text and "image/flip" in text


@pytest.mark.parametrize("override, wanted", [
    ("batch_norm=3", "batch_norm=3: wanted settings (key: value), got int"),
    ("batch_norm.group=word", "batch_norm.group='word': wanted a whole number of samples, or null for all of them"),
    ("augmentation.eval=null", "augmentation.eval=None: wanted settings (key: value), got NoneType"),
    ("augmentation.eval.ops=3", "augmentation.eval.ops=3: wanted a list, got int"),
    ("augmentation.views=null", "augmentation.views=None: wanted a list, got NoneType"),
    ("augmentation.views=[{size: 9, ops: a}]", "augmentation.views.0: ops is 'a', it must be a list of operations"),
    ("trainer.devices=0", "trainer.devices=0: wanted a whole number of at least 1, or -1 for all of them"),
    ("trainer.clip=3", "trainer.clip=3: wanted settings (key: value), or null, got int"),
    ("callbacks.nan_guard=true", "callbacks.nan_guard=True: wanted settings (key: value), or null, got bool"),
    ("objective=3", "objective=3: wanted null, or the name of a number of summary.json, such as knn/top1"),
    ("few_labels=[0]", "few_labels=[0]: wanted numbers of labels a class, such as [1,5,10], or auto, or null for none"),
    ("few_labels=5", "few_labels=5: wanted numbers of labels a class, such as [1,5,10], or auto, or null for none"),
    ("debug=null", "debug=null: a group wants one of its files, fast, overfit; leave debug out for its default"),
    ("method.backbone=[1]", "method.backbone=[1]: SimCLR wants a backbone (a node with _target_), got list"),
    ("optimizer.values=null", "optimizer.values=None: OptimizerRecipe wants settings (key: value), got NoneType"),
    ("method.projector.hidden=[a]", "method.projector.hidden=['a']: MLP wants a list, each a whole number, got list"),
])  # fmt: skip
def test_the_wrong_kind_of_value_anywhere(override: str, wanted: str) -> None:
    assert message([override], deep=True) == wanted


@pytest.mark.parametrize("override, wanted", [
    ("method.temperature=0", "method.temperature=0: SimCLR wants a number above 0"),
    ("method.temperature=nan", "method.temperature=nan: SimCLR wants a number above 0"),
    ("method.grad_cache=0", "method.grad_cache=0: SimCLR wants a whole number of at least 1"),
    ("backbone.width=0", "backbone.width=0: resnet8 wants a whole number of at least 1"),
    ("callbacks.online_knn.k=0", "callbacks.online_knn.k=0: OnlineKNN wants a whole number of at least 1"),
    ("optimizer.values.lr.peak=-1", "optimizer.values.lr.peak=-1: WarmupCosine wants a number of at least 0"),
    ("trainer.log_every=0", "trainer.log_every=0: make_trainer wants a whole number of at least 1"),
    ("trainer.max_epochs=0", "trainer.max_epochs=0: make_trainer wants a whole number of at least 1, or -1 for none"),
    ("trainer.max_epochs=-1", "trainer.max_epochs=-1 and trainer.max_steps=-1: the run has no end; set one of them"),
])  # fmt: skip
def test_a_number_out_of_its_range(override: str, wanted: str) -> None:
    assert message([override], deep=True) == wanted


@pytest.mark.parametrize("method, name", [("swav", "SwAV"), ("dinov2", "DINOv2")])
def test_sinkhorn_wants_an_iteration(method: str, name: str) -> None:
    wanted = f"method.iterations=0: {name} wants a whole number of at least 1"
    assert message([f"method={method}", "method.iterations=0"], deep=True) == wanted


def test_ranges_inside_lists_and_beside_schedules() -> None:
    text = message(["method=pcl", "method.clusters=[0, 3]", "method.momentum=2"], deep=True)
    assert text.splitlines() == [
        "method.momentum=2: PCL wants a number from 0 to 1 or a schedule (a node with _target_)",
        "method.clusters=[0, 3]: PCL wants a list, each a whole number of at least 1, got list",
    ]


def test_wrong_keys_of_views_are_told_before_views_are_counted() -> None:
    views = "[{size: 32, count: two, ops: []}, {size: 32, kind: globl, ops: []}, {siez: 32, ops: []}]"
    assert message([f"augmentation.views={views}"], deep=True).splitlines() == [
        "augmentation.views.0: count is 'two', it must be a whole number of at least 1",
        "augmentation.views.1: kind=globl: did you mean 'global'?",
        "augmentation.views.2: a view has no key 'siez': did you mean 'size'?",
        "augmentation.views.2: a view needs 'size'",
    ]


def test_unreadable_overrides() -> None:
    assert message(["method=[byol"]).startswith("cannot read 'method=[byol'")


def test_a_sweep_is_expanded_in_hydras_order() -> None:
    jobs = sweeps.expand(["method=simclr,byol", "seed=0,1", "data=digits"])
    assert jobs[1] == ["method=simclr", "seed=1", "data=digits"] and len(jobs) == 4


RANGED = ("temperature", "momentum", "queue_size", "label_smoothing", "clusters", "prototypes", "negatives")


@pytest.mark.parametrize("scale", ["small", "large"])
@pytest.mark.parametrize("name", quickly(METHODS))
def test_every_method_has_a_recipe_that_passes_the_check_and_does_not_out_of_range(name: str, scale: str) -> None:
    # Colour images: those of the default data bring an augmentation of their own, in place of the method's.
    cfg = config.load([f"method={name}", "data=synthetic", f"scale={scale}"])
    build.check_signatures(cfg)
    assert cfg.recipe.name == f"{scale}/{name}" and cfg.recipe.source
    numbers = [key for key, value in cfg.method.items() if isinstance(value, (int, float)) and key.endswith(RANGED)]
    for key in numbers:
        cfg.method[key] = -1
    told = ""
    if numbers:
        with pytest.raises(ConfigError) as caught:
            build.check_signatures(cfg)
        told = str(caught.value)
    assert [key for key in numbers if f"method.{key}=-1: " not in told] == []


EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", quickly(EXPERIMENTS, EXPERIMENTS[::8]))
def test_every_experiment_passes_the_check_and_says_what_it_should_reach(name: str) -> None:
    cfg = config.load([f"experiment={name}"])
    build.check_signatures(cfg)
    assert cfg.expected is None or cfg.expected.measure  # None: nobody printed a number
    assert cfg.recipe.name.startswith("small/" if max(height_width(cfg.data.image_size)) <= 96 else "large/")


def test_the_data_chooses_the_scale_and_the_command_line_wins(tmp_path: Path) -> None:
    cfg = config.load(["data=imagenet", "method=byol"])
    assert (cfg.recipe.name, cfg.scale.stem) == ("large/byol", "standard")
    assert cfg.backbone._target_.endswith("resnet50") and cfg.method.projector.hidden == [4096]
    cfg = config.load(["data=imagenet", "method=byol", "backbone=resnet18", "scale=small", "method.momentum=0.5"])
    assert cfg.backbone._target_.endswith("resnet18") and cfg.recipe.name == "small/byol" and cfg.method.momentum == 0.5


def test_the_hash_knows_what_changes_the_numbers() -> None:
    def hashed(*argv: str) -> str:
        return config.config_hash(config.plain(config.load(list(argv))))

    same = hashed()
    neutrals = ("trainer.devices=2", "data.workers=3", "logger=none", "callbacks=none", "augmentation.where=device")
    neutrals += ("trainer.max_epochs=3", "trainer.max_time=01:00:00", "data.changed=accept", "+seed_of_none=null")
    for neutral in neutrals:
        assert hashed(neutral) == same, neutral
    others = ("seed=1", "method.temperature=0.3", "trainer.accumulate=2", "trainer.precision=64-true")
    for other in (*others, "data.subset=100", "data.batch_size=64"):
        assert hashed(other) != same, other


def test_interpolations_resolve_to_plain_containers() -> None:
    cfg = config.load([])
    assert isinstance(config.plain(cfg)["method"]["backbone"]["width"], int)
    assert OmegaConf.is_config(cfg)


def test_a_wrong_word_for_the_trainer() -> None:
    text = message(["trainer.max_epochs=many"], deep=True)
    assert text.startswith("trainer.max_epochs='many': make_trainer wants a whole")


def test_a_value_that_must_be_given_is_named_once() -> None:
    assert message(["backbone=timm"]) == "backbone.name is not set; give backbone.name=VALUE"


def test_groups_of_rows_must_divide_the_batch() -> None:
    text = message(["batch_norm.group=32", "data.batch_size=80"])
    assert text.endswith(
        "does not divide the 80 samples of a micro-batch over all devices; "
        "try batch_norm.group=40, or null for all of them"
    )


def test_samples_are_dealt_to_groups_of_one_process() -> None:
    dealt = ["batch_norm.interleaved=true", "data.batch_size=24"]
    assert message(dealt) == (
        "batch_norm.interleaved=true deals samples to groups, and batch_norm.group is null; set that too"
    )
    assert message([*dealt, "batch_norm.group=6", "trainer.devices=2"]) == (
        "batch_norm.interleaved=true deals the samples of one process to groups, and there are 2; set "
        "trainer.devices=1, or batch_norm.interleaved=null for consecutive samples"
    )
    assert message(["batch_norm.interleaved=maybe"]) == "batch_norm.interleaved='maybe': wanted true, false or null"
    config.quick_check(config.load([*dealt, "batch_norm.group=6", "trainer.devices=1"]))


def test_an_evaluation_view_has_a_size_in_pixels() -> None:
    text = message(["+augmentation.eval.size=0"], deep=True)
    assert text == "augmentation.eval.size=0: wanted a whole number of pixels, or null for data.image_size"


def test_groups_of_samples_may_not_cross_processes() -> None:
    wanted = ["data.batch_size=24", "trainer.devices=2"]
    assert message([*wanted, "batch_norm.group=8"]) == (
        "batch_norm.group=8 (samples that share statistics) crosses processes of 12 samples each: wanted a number that "
        "divides 12, or a multiple of it that divides 24; try batch_norm.group=6, or null for all of them"
    )
    for group in (2, 3, 12, 24):
        config.quick_check(config.load([*wanted, f"batch_norm.group={group}"]))


def test_a_run_goes_on_with_a_number_of_processes_that_its_groups_do_not_cross() -> None:
    wanted = ["data.batch_size=24", "batch_norm.group=4", "resume=auto"]
    assert message([*wanted, "trainer.devices=4"]) == (
        "batch_norm.group=4 (samples that share statistics) crosses processes of 6 samples each, and a run keeps its "
        "groups; go on with 1 or 2 or 3 processes"
    )
    for devices in (1, 2, 3, 6):
        config.quick_check(config.load([*wanted, f"trainer.devices={devices}"]))


def test_several_callbacks_are_chosen_by_a_list() -> None:
    assert list(config.load(["callbacks=[nan_guard,progress]"]).callbacks) == ["nan_guard", "progress"]
    with pytest.raises(ConfigError, match="callbacks=progres: there is no such callbacks; did you mean 'progress'"):
        config.load(["callbacks=[nan_guard,progres]"])


def test_settings_of_a_callback_that_nothing_chose() -> None:
    text = message(["callbacks=collapse", "+callbacks.online_knn.k=5"])
    assert "callbacks.online_knn has settings and no _target_: nothing chose that callback; choose it too" in text


def test_settings_that_came_later_tell_no_runs_apart_at_their_old_values() -> None:
    def hashed(*words: str) -> str:
        return config.config_hash(config.plain(config.load(["data=folder", "data.root=x", *words])))

    before = config.plain(config.load(["data=folder", "data.root=x"]))
    for name in ("exif", "range", "nodata", "table", "train_folder", "val_folder", "shares", "max_pixels"):
        before["data"]["source"].pop(name)
    assert hashed("data.source.exif=false") == config.config_hash(before) != hashed()
    assert hashed("data.source.exif=false", "data.source.range=[0,4095]") != config.config_hash(before)
    assert hashed("data.source.exif=false", "data.source.table=a.csv") == config.config_hash(before)
    source = {**before["data"]["source"], "exif": True, "max_pixels": 5}
    now = config.identity({**before, "data": {**before["data"], "source": source}})
    told = config.differences(config.identity(before), now, common=True)
    assert told == ["data.source.exif: 'not set', now True"]  # also of another version: the images would be turned
