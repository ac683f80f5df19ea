"""One row for each sample: staged writes, duplicates, memory, and what is refused."""

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.modules.memory_bank import MemoryBank, bank_bytes
from tests.pool import GlooPool


def test_a_write_waits_for_the_commit_and_blends_old_and_new():
    bank = MemoryBank(3, 2, momentum=0.75)
    bank.keys.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    bank.update(torch.tensor([2, 1]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert bank.keys.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    bank.commit()
    # 0.75 (1, 0) + 0.25 (0, 1) has length sqrt(10) / 4
    torch.testing.assert_close(bank.keys, torch.tensor([[1.0, 0.0], [1.0, 3.0], [3.0, 1.0]]) / torch.tensor(
        [[1.0], [math.sqrt(10)], [math.sqrt(10)]]))
    bank.commit()
    assert bank.rows(torch.tensor([2])).tolist() == bank.keys[2:].tolist()


def test_of_a_sample_twice_in_a_write_the_last_counts_and_two_writes_follow_one_another():
    start = F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    new = F.normalize(torch.randn(4, 4, generator=torch.Generator().manual_seed(2)), dim=1)
    once, twice = MemoryBank(5, 4), MemoryBank(5, 4)
    for bank in (once, twice):
        bank.keys.copy_(start)
    once.update(torch.tensor([3, 0, 3, 3]), new)
    once.commit()
    torch.testing.assert_close(once.keys[3], F.normalize(start[3] + new[3], dim=0))
    torch.testing.assert_close(once.keys[0], F.normalize(start[0] + new[1], dim=0))
    assert torch.equal(once.keys[[1, 2, 4]], start[[1, 2, 4]])
    for row in (0, 3):
        twice.update(torch.tensor([3]), new[row : row + 1])
    twice.commit()
    first = F.normalize(start[3] + new[0], dim=0)
    torch.testing.assert_close(twice.keys[3], F.normalize(first + new[3], dim=0))


@pytest.mark.parametrize(("dtype", "each"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_it_costs_what_is_predicted_and_computes_in_float32(dtype, each):
    bank = MemoryBank(40, 8, dtype=dtype)
    assert bank_bytes(40, 8, dtype) == 40 * 8 * each == bank.keys.untyped_storage().nbytes()
    assert bank.rows(torch.tensor([3])).dtype == torch.float32
    assert bank.state_dict()["keys"].dtype == getattr(torch, dtype)
    exact = MemoryBank(40, 8)
    new = F.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    for one in (bank, exact):
        one.update(torch.tensor([3, 7]), new)
        one.commit()
    torch.testing.assert_close(bank.keys.float(), exact.keys, rtol=0, atol={2: 5e-3, 4: 0}[each])


def test_imagenets_bank_costs_656_mb():
    assert bank_bytes(1_281_167, 128) == 655_957_504
    assert bank_bytes(1_281_167, 128, "float16") == 327_978_752


@pytest.mark.slow
def test_the_memory_of_a_process_grows_by_that_much():
    code = ("import resource, torch\n"
            "from ssl_zoo.modules.memory_bank import MemoryBank, bank_bytes\n"
            "MemoryBank(10, 128)\n"
            "read = lambda: int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()\n"
            "before = read()\n"
            "bank = MemoryBank(400_000, 128, dtype='float16')\n"
            "print((read() - before) / bank_bytes(400_000, 128, 'float16'))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(1.0, abs=0.1)


def test_the_starts_have_the_authors_ranges_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    uniform, sphere, other = MemoryBank(2000, 12), MemoryBank(50, 12, start="sphere"), MemoryBank(2000, 12, seed=1)
    assert torch.equal(torch.rand(2), wanted)
    assert 0.49 < uniform.keys.abs().max() <= 0.5  # sqrt(3 / 12)
    assert uniform.keys.square().sum(1).mean() == pytest.approx(1.0, abs=0.02)
    assert sphere.keys.norm(dim=1).tolist() == pytest.approx([1.0] * 50)
    assert not torch.equal(uniform.keys, other.keys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "one row for each training sample, and there are 0"),
        ({"momentum": 1.5}, "bank_momentum=1.5: wanted the weight of the old row, 0 to 1"),
        ({"dtype": "float8"}, "bank_dtype=float8: did you mean 'float(16|32)'"),
        ({"start": "spher"}, "start=spher: did you mean 'sphere'"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MemoryBank(**{"samples": 4, "dim": 2, **options})


def test_rows_of_another_width_or_number_are_refused():
    bank = MemoryBank(4, 2)
    with pytest.raises(ValueError, match=r"got \[2, 3\] rows for 2 samples of a bank \[4, 2\]"):
        bank.update(torch.tensor([0, 1]), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"got \[2, 2\] rows for 1 samples"):
        bank.update(torch.tensor([0]), torch.ones(2, 2))


def gathered_update() -> torch.Tensor:
    from ssl_zoo.distributed import gather, own_rows

    bank = MemoryBank(9, 3).double()
    rows = F.normalize(torch.arange(18.0, dtype=torch.float64).view(6, 3) - 7, dim=1)
    index = torch.tensor([4, 2, 8, 2, 0, 1])
    bank.update(gather(own_rows(index)), gather(own_rows(rows)))
    bank.commit()
    return bank.keys


def test_two_processes_write_what_one_does(pool: GlooPool):
    one = gathered_update()
    assert all(torch.equal(two, one) for two in pool.run(gathered_update))
