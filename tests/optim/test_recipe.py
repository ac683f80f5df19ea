from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

import ssl_zoo.conf  # noqa: F401  (its resolvers)
from ssl_zoo.optim.lars import LARS
from ssl_zoo.optim.recipe import BoundRecipe, OptimizerRecipe, lr_multiplier
from ssl_zoo.optim.schedules import Constant, Cosine, Linear, Progress, WarmupCosine
from ssl_zoo.signatures import problems
from tests.helpers import quickly

CONF = Path(__file__).parents[2] / "conf"
START = Progress(step=0, total=100, steps_per_epoch=10)
SGD = partial(torch.optim.SGD, momentum=0.9)
NO_DECAY = {"bias_and_norm": {"ndim_at_most": 1, "weight_decay": 0.0}}


def network():
    return nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)),
            "predictor": nn.Linear(4, 2),
            "prototypes": nn.Linear(2, 5, bias=False),
        }
    )


def bind(rules=(), values=None, lr_scale="absolute", batch_size=256, optimizer=SGD):
    recipe = OptimizerRecipe(optimizer, {"lr": 1.0, "weight_decay": 0.1, **(values or {})}, rules, lr_scale)
    return recipe.bind(network().named_parameters(), batch_size)


def test_parameters_without_a_rule_share_one_group():
    bound = bind()
    [group] = bound.optimizer.param_groups
    assert (group["name"], len(group["params"]), group["lr"], group["weight_decay"]) == ("default", 6, 1.0, 0.1)


def test_rule_by_dimensions_takes_biases_and_norms():
    default, rest = bind(NO_DECAY).optimizer.param_groups
    assert [p.ndim for p in default["params"]] == [4, 2, 2]
    assert (rest["name"], [p.ndim for p in rest["params"]], rest["weight_decay"]) == ("bias_and_norm", [1, 1, 1], 0.0)


def test_first_match_wins():
    rules = [{"match": r"^predictor\.", "lr": 0.5}, {"ndim_at_most": 1, "weight_decay": 0.0}]
    default, predictor, rest = bind(rules).optimizer.param_groups
    assert predictor["name"] == r"match '^predictor\\.'"
    assert (len(predictor["params"]), predictor["weight_decay"]) == (2, 0.1)
    assert (rest["name"], len(rest["params"]), rest["lr"]) == ("ndim <= 1", 2, 1.0)
    assert len(default["params"]) == 2


def test_match_and_dimensions_must_both_hold():
    rules = [{"name": "bias", "match": "predictor", "ndim_at_most": 1, "lr": 0.5}]
    assert [(g["name"], len(g["params"])) for g in bind(rules).optimizer.param_groups] == [("default", 5), ("bias", 1)]


def test_rule_that_matches_nothing_shows_names():
    with pytest.raises(ValueError) as error:
        bind({"head": {"match": "^projector", "lr": 0.5}})
    assert "optimizer.rules: head (match '^projector') matches none of 6 trainable parameters" in str(error.value)
    assert "backbone.0.weight" in str(error.value) and "prototypes.weight" in str(error.value)


def test_rule_behind_one_that_takes_everything_says_so():
    with pytest.raises(ValueError, match=r"rules take all that it matches: predictor\.bias; put it before them"):
        bind({**NO_DECAY, "late": {"match": r"predictor\.bias", "lr": 0.5}})
    with pytest.raises(ValueError, match="#2 .* gets no parameter"):
        bind([{"match": "predictor"}, {"match": "predictor"}])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"x": {"lr": 0.5}}, "optimizer.rules.x selects nothing: give it 'match' or 'ndim_at_most'"),
        ({"x": {"match": "(", "lr": 0.5}}, "optimizer.rules.x.match='\\(' is no regular expression"),
        ({"x": {"match": "p", "frozen_until": {"steps": 3}}}, "wants steps or {epochs: n}, got {'steps': 3}"),
        ({"x": {"match": "pre", "wieght_decay": 0.5}}, "x.wieght_decay: SGD has no .*did you mean 'weight_decay'"),
        ({"x": {"match": "pre", "weight_decay": "word"}}, "optimizer.rules.x.weight_decay='word': SGD wants a number"),
        ({"x": {"match": "pre", "weight_decay": -1.0}}, "optimizer.rules.x: Invalid weight_decay value: -1.0"),
    ],
)
def test_wrong_rules_are_told(rules, message):
    with pytest.raises(ValueError, match=message):
        bind(rules)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": "word"}, "optimizer.values.lr='word': SGD wants a number or a tensor .*, got str"),
        ({"lr": -1.0}, "optimizer.values: Invalid learning rate: -1.0"),
        ({"lr": Cosine(1.0), "momentum": -1}, "optimizer.values: Invalid momentum value: -1"),
        ({"lr": 1.0, "nesterov": 3}, "optimizer.values.nesterov=3: SGD wants true or false"),
    ],
)
def test_values_that_the_optimizer_does_not_take_are_told(values, message):
    with pytest.raises(ValueError, match=message):
        OptimizerRecipe(SGD, values).bind(network().named_parameters(), 256)


def test_recipe_without_lr_or_parameters_is_told():
    with pytest.raises(ValueError, match=r"optimizer.values has no 'lr', only \['momentum'\]"):
        OptimizerRecipe(SGD, {"momentum": 0.9})
    with pytest.raises(ValueError, match="no parameter requires a gradient"):
        OptimizerRecipe(SGD, {"lr": 1.0}).bind(network().requires_grad_(False).named_parameters(), 256)


def test_frozen_parameters_are_left_out():
    module = network()
    module["backbone"].requires_grad_(False)
    bound = OptimizerRecipe(SGD, {"lr": 1.0}).bind(module.named_parameters(), 256)
    assert sum(len(group["params"]) for group in bound.optimizer.param_groups) == 3


def test_rule_that_is_none_is_left_out():
    assert len(bind({"bias_and_norm": None}).optimizer.param_groups) == 1


@pytest.mark.parametrize(("kind", "factor"), [("linear256", 16.0), ("sqrt", 64.0), ("absolute", 1.0)])
def test_rates_scale_with_the_batch(kind, factor):
    assert lr_multiplier(kind, 4096) == factor
    rules = {"predictor": {"match": "predictor", "lr": 0.5}, "prototypes": {"match": "prototypes", "lr_factor": 0.1}}
    bound = bind(rules, {"lr": Cosine(0.3)}, kind, batch_size=4096)
    bound.apply(START)
    assert [g["lr"] for g in bound.optimizer.param_groups] == pytest.approx([0.3 * factor, 0.5 * factor, 0.03 * factor])
    assert bound.lr(START) == pytest.approx(0.3 * factor)


def test_unknown_scale_names_the_nearest():
    with pytest.raises(ValueError, match="optimizer.lr_scale=linear: did you mean 'linear256'"):
        OptimizerRecipe(SGD, {"lr": 1.0}, lr_scale="linear")


def test_apply_sets_every_schedule_and_restores_constants():
    rules = {"predictor": {"match": "predictor", "lr": Constant(0.5)}}
    bound = bind(rules, {"lr": Cosine(1.0), "weight_decay": Linear(0, 1)})
    bound.optimizer.param_groups[0]["momentum"] = 0.0
    bound.apply(Progress(50, 100, 10))
    default, predictor = bound.optimizer.param_groups
    assert (default["lr"], default["weight_decay"]) == pytest.approx((0.5, 0.5))
    assert (predictor["lr"], predictor["weight_decay"]) == pytest.approx((0.5, 0.5))
    assert isinstance(default["lr"], float)
    bound = bind(values={"momentum": 0.9})
    bound.optimizer.param_groups[0]["momentum"] = 0.0
    bound.apply(START)
    assert bound.optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("until", [10, {"epochs": 1}])
def test_frozen_group_gets_no_step_until_its_time(until):
    module = network()
    rules = {"c": {"match": "prototypes", "frozen_until": until}}
    recipe = OptimizerRecipe(SGD, {"lr": 0.1, "weight_decay": 0.1}, rules)
    bound = recipe.bind(module.named_parameters(), 256)
    before = module["prototypes"].weight.detach().clone()
    for step, moved in ((9, False), (10, True)):
        for p in module.parameters():
            p.grad = torch.ones_like(p)
        bound.freeze(Progress(step, 100, 10))
        bound.optimizer.step()
        assert (not torch.equal(module["prototypes"].weight, before)) is moved
    assert bound.table(START)[1].frozen_until == 10


def test_table_and_messages():
    bound = bind(NO_DECAY, {"lr": WarmupCosine(0.3, warmup_epochs=20)}, "linear256", batch_size=512)
    default, rest = bound.table(START)
    assert (default.name, default.tensors, default.parameters) == ("default", 3, 4 * 27 + 8 + 10)
    assert (default.lr, default.highest_lr, default.weight_decay) == pytest.approx((0.0, 0.6, 0.1))
    assert (rest.parameters, rest.weight_decay, rest.frozen_until) == (10, 0.0, None)
    assert bound.messages(START)[0] == (
        "default, lr: the warm-up of 200 steps does not fit a run of 100 steps: cut to 10 steps"
    )


def fresh() -> tuple[nn.Module, BoundRecipe]:
    torch.manual_seed(0)
    module = network()
    rules = {"b": {"ndim_at_most": 1, "adapt": False}}
    recipe = OptimizerRecipe(LARS, {"lr": WarmupCosine(1.0, warmup_epochs=1)}, rules)
    return module, recipe.bind(module.named_parameters(), 256)


def train(module: nn.Module, bound: BoundRecipe, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        for p in module.parameters():
            p.grad = torch.randn_like(p)
        bound.apply(Progress(step, 100, 10))
        bound.optimizer.step()


def test_resumed_optimizer_continues_to_the_bit():
    whole, stopped, resumed = fresh(), fresh(), fresh()
    train(*whole, range(6))
    train(*stopped, range(3))
    resumed[0].load_state_dict(stopped[0].state_dict())
    resumed[1].optimizer.load_state_dict(stopped[1].optimizer.state_dict())
    train(*resumed, range(3, 6))
    for a, b in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(a, b)


FILES = sorted({path.relative_to(CONF).with_suffix("").as_posix() for path in (CONF / "optimizer").glob("**/*.yaml")})
# Files beside a folder of their name only choose in it, by the scale of the data.
FILES = [name for name in FILES if not (CONF / name).is_dir()]


def every_part() -> nn.ModuleDict:
    """A network that has what the rules of the files speak of."""
    module = network()
    module["backbone"].add_module("blocks", nn.ModuleList([nn.Linear(2, 2)]))
    module["backbone"].add_module("patch_embed", nn.Linear(2, 2))
    module["backbone"].add_module("bn1", nn.BatchNorm2d(2))
    module["backbone"].register_parameter("cls_token", nn.Parameter(torch.randn(1, 1, 2)))
    module["projector"] = nn.ModuleDict({"last_layer": nn.Linear(2, 2, bias=False)})
    module["top"] = nn.Linear(2, 2)
    module["classifier"] = nn.Linear(2, 2)
    module.register_parameter("mask_token", nn.Parameter(torch.randn(1, 1, 2)))
    return module


@pytest.mark.parametrize("name", quickly(FILES, FILES[::3]))
def test_every_optimizer_file_builds_and_steps(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = f"+{name.rpartition('/')[0]}@optimizer={name.rpartition('/')[2]}"
        config = compose(overrides=[chosen, "+backbone={_target_: vit}"])
    assert list(problems(OmegaConf.to_container(config.optimizer, resolve=True), "optimizer")) == []
    module = every_part()
    recipe = instantiate(config.optimizer)
    bound = recipe.bind(module.named_parameters(), 256)
    progress = Progress(step=950_000, total=1_000_000, steps_per_epoch=1000)  # behind every warm-up and frozen part
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    bound.apply(progress)
    bound.freeze(progress)
    before = [p.detach().clone() for p in module.parameters()]
    bound.optimizer.step()
    pairs = list(zip(module.parameters(), before, strict=True))
    assert all(torch.equal(p, b) is (p.grad is None) for p, b in pairs)  # frozen for ever: DeepCluster-v2's centroids
    assert all(type(rule) is dict for rule in recipe.rules.values())
    # At the end every schedule has come down; what is a number (the authors' Adam), or a cosine to its start, has none.
    lr = recipe.values["lr"]
    constant = isinstance(lr, float) or getattr(lr, "end", None) == lr.highest()
    highest = bound.table(progress)[0].highest_lr
    assert bound.lr(progress) == highest if constant else 0 < bound.lr(progress) < highest


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, SGD])
def test_moments_that_lie_otherwise_in_memory_than_their_parameter_stay_its_own(optimizer):
    """A fused step takes numbers as they lie: those of a contiguous checkpoint went to other weights."""

    def bound_and_gradient(layout):
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 4, 3).to(memory_format=layout)
        layer.weight.grad = torch.randn(4, 3, 3, 3).contiguous(memory_format=layout)
        layer.bias.grad = torch.randn(4)
        recipe = OptimizerRecipe(partial(optimizer, lr=0.1), {"lr": 0.1}, lr_scale="absolute")
        return layer, recipe.bind(layer.named_parameters(), 8)

    first, rows = bound_and_gradient(torch.contiguous_format)
    second, last = bound_and_gradient(torch.channels_last)
    rows.optimizer.step()
    second.load_state_dict(first.state_dict())
    last.optimizer.load_state_dict(deepcopy(rows.optimizer.state_dict()))
    for bound in (rows, last):
        bound.optimizer.step()
    torch.testing.assert_close(second.weight, first.weight, rtol=1e-6, atol=1e-7)


def test_a_loaded_state_does_not_choose_the_kernels():
    one, other = (bind(optimizer=partial(torch.optim.Adam, fused=fused)) for fused in (True, False))
    other.optimizer.load_state_dict(one.optimizer.state_dict())
    other.apply(START)
    assert [group["fused"] for group in other.optimizer.param_groups] == [False]
