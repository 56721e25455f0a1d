"""What a GPU does during training steps, and how long it waits for the host.

A *kernel* is anything that the profiler saw on the card, copies and fills too. The card is *busy*
while one runs; *span* is from the first one's start to the last one's end. Times are microseconds.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .contenders import Contender
from .workload import Workload

Kernel = tuple[float, float, str]  # start, end, name
_WAITS = ('ynchronize', 'emcpy')  # in the names of the runtime's calls and of kernels
_ANNOTATIONS = ('Optimizer.', 'ProfilerStep')  # spans on the card's time line, no work
_SHOWN = 10


def profile_steps(contender: Contender, workload: Workload, steps: int = 2) -> dict:
    """Profile steps of a model that has trained before: kernels on CUDA, operators elsewhere."""
    clock, on_cuda = contender.clock, contender.device.type == 'cuda'
    batches = [workload.training_batch(seed) for seed in range(steps)]
    clock.restart(on=False)
    start = clock.now()
    for batch in copy.deepcopy(batches):  # they are written into
        contender.step(batch)
    seconds = (clock.now() - start) / steps
    # the operators' own events would slow the host down, and with it all that waits for it
    activity = ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiled:
        for batch in batches:
            contender.step(batch)
        clock.now()
    if not on_cuda:
        averages = profiled.key_averages()
        within = Counter({event.key: event.self_cpu_time_total for event in averages})
        counts = Counter({event.key: event.count for event in averages})
        heaviest = _heaviest('operator', within, counts, steps)
        return {'card': 'none: there is no CUDA device', 'heaviest operators': heaviest}
    events = profiled.events()
    kernels = [
        (event.time_range.start, event.time_range.end, event.name)
        for event in events
        if event.device_type == DeviceType.CUDA and not event.name.startswith(_ANNOTATIONS)
    ]
    calls = Counter(event.name for event in events if any(wait in event.name for wait in _WAITS))
    figures = kernel_figures(kernels, steps)
    figures['calls a step'] = {name: count / steps for name, count in calls.most_common(_SHOWN)}
    figures['seconds a step'] = seconds
    figures['busy share without the profiler'] = figures['busy ms a step'] / (1000 * seconds)
    return figures


def kernel_figures(kernels: Iterable[Kernel], steps: int) -> dict:
    """How busy the card was in some steps, and with what; ValueError: there are no kernels."""
    kernels = sorted(kernels)
    if not kernels:
        raise ValueError('The profiler saw nothing on the card.')
    first = last = kernels[0][0]
    busy, gaps, within = 0.0, [], Counter()
    for start, end, name in kernels:
        if start > last:
            gaps.append({'ms': (start - last) / 1000, 'before the kernel': _short(name)})
        busy += max(0.0, end - max(start, last))
        last = max(last, end)
        within[name] += end - start
    counts = Counter(name for *_, name in kernels)
    return {
        'kernels a step': len(kernels) / steps,
        'span ms a step': (last - first) / 1000 / steps,
        'busy ms a step': busy / 1000 / steps,
        'busy share': busy / (last - first),
        'longest gaps': sorted(gaps, key=lambda gap: gap['ms'], reverse=True)[:_SHOWN],
        'heaviest kernels': _heaviest('kernel', within, counts, steps),
    }


def _heaviest(what: str, within: Counter, counts: Counter, steps: int) -> list[dict]:
    return [
        {
            what: _short(name),
            'share': time / within.total(),
            'ms a step': time / 1000 / steps,
            'calls a step': counts[name] / steps,
        }
        for name, time in within.most_common(_SHOWN)
    ]


def _short(name: str) -> str:
    """At most 100 characters, fit for a cell of a table."""
    return name[:100].replace('|', '/')
