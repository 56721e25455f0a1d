import pytest
import torch

from mmdet_dino_r1.lab.benchmark.contenders import (
    DINO_R1,
    LATE,
    MMDET,
    NAMES,
    VIS_GDINO,
    build_contender,
    count_parameters,
)
from mmdet_dino_r1.lab.benchmark.measure import (
    KEPT,
    PEAK,
    STEP,
    bank_figures,
    in_turn,
    inference_figures,
    kept_bytes,
    process_memory,
    step_memory,
    training_figures,
)

CPU = torch.device('cpu')


def test_jobs_take_turns_and_the_first_round_does_not_count():
    order = []
    figures = dict(a=[1000, 5, 1, 9], b=[1000, 2, 4, 8], c=[1000, 7, 7, 7])

    def job(name):
        def run():
            order.append(name)
            value = figures[name][order.count(name) - 1]
            return dict(seconds=value, twice=2 * value)

        return run

    measured = in_turn({name: job(name) for name in figures}, rounds=3)
    assert ''.join(order) == 'abcbcacababc'
    assert measured == dict(
        a=dict(seconds=5, twice=10), b=dict(seconds=4, twice=8), c=dict(seconds=7, twice=14)
    )


def test_of_an_even_number_of_rounds_the_median_is_between():
    values = iter([0, 1, 2, 6, 9])
    assert in_turn(dict(a=lambda: dict(s=next(values))), rounds=4) == dict(a=dict(s=4))


@pytest.fixture
def contenders(cfg):
    return [build_contender(name, cfg, CPU, torch.float32, recompute=False) for name in NAMES]


def test_phases_of_a_step(contenders, workload):
    figures = training_figures(contenders, workload, rounds=1)
    shared = {'data', 'forward', 'matching and losses', 'backward', 'optimiser'}
    phases = {
        name: {
            key[2:-3]: value for key, value in of.items() if key[:2] == '… ' and value is not None
        }
        for name, of in figures.items()
    }
    assert {name: set(of) for name, of in phases.items()} == {
        VIS_GDINO: shared,
        DINO_R1: shared | {'reference'},
        LATE: shared,
        MMDET: shared | {'text'},
    }
    for contender in contenders:
        of = figures[contender.name]
        assert sum(phases[contender.name].values()) <= of[STEP]
        assert of['images/s'] == workload.batch_size / of[STEP]
        assert of['parameters, millions'] == count_parameters(contender.model) / 1e6
        assert ('language model' in of) == (contender.name == MMDET)


def test_inference_is_timed_once_for_what_is_one_network(contenders, workload):
    figures = inference_figures(contenders, workload, (3, 200), rounds=1)
    assert {name: set(of) for name, of in figures.items()} == dict.fromkeys(
        (DINO_R1, LATE, MMDET), {'3 classes, s', '200 classes, s'}
    )
    assert set(inference_figures(contenders[:1], workload, (3,), rounds=1)) == {VIS_GDINO}


def test_every_box_of_the_batch_is_an_exemplar_of_the_bank(contenders, workload):
    figures = bank_figures(contenders[:3], workload, rounds=1)
    assert set(figures) == {DINO_R1, LATE}
    for of in figures.values():
        assert of['boxes/s'] == pytest.approx(3 * of['images/s'])


def test_what_is_kept(contenders, workload):
    weights = 4 * count_parameters(contenders[0].model)
    contender = contenders[0]
    assert kept_bytes(contender) == weights + sum(b.nbytes for b in contender.model.buffers())
    contender.step(workload.training_batch())
    with_adam = kept_bytes(contender)
    # two moments for each weight that was used, and the number of the step
    assert 2.5 * weights < with_adam < 3.1 * weights
    snapshot = contenders[1].model.reference_model.state_dict().values()
    difference = kept_bytes(contenders[1]) - kept_bytes(contenders[2])
    assert 0 < sum(tensor.nbytes for tensor in snapshot) < weights
    assert difference != 0


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(cfg, workload):
    ballast = torch.zeros(2**28)  # 1 GiB of this process
    figures = process_memory(DINO_R1, cfg, workload, torch.float32, recompute=False)
    assert 0 < figures[KEPT] < figures[PEAK] < ballast.nbytes / 2**30


def test_memory_of_a_step_beside_other_models(contenders, workload, monkeypatch):
    """What else is held, the other models for one, does not count."""
    ours = contenders[NAMES.index(DINO_R1)]
    gib = 2**30
    for name, value in dict(
        reset_peak_memory_stats=None, memory_allocated=50 * gib, max_memory_allocated=53 * gib
    ).items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    found = step_memory(ours, workload)
    assert found[KEPT] == kept_bytes(ours) / gib > 0
    assert found[PEAK] == pytest.approx(3 + found[KEPT])
