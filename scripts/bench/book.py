"""The job of the book's classic script, all of it: 4 layers x 64 filters x 40 steps at 150 x 150 pixels on VGG16.

    .venv/bin/python scripts/bench/book.py [--filters 64] [--naive 2]

Ours draws ``--filters`` of each layer. The naive loop (a hook, the whole network, weights differentiated, one filter
after the other) draws ``--naive`` of each layer, after one step that does not count; a filter of a layer takes as long
as any other, so its total is that time as often as it goes into the whole job. With fewer filters of ours the same
holds for ours, whose set-up is then counted too often. Processor seconds; the weights are random.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable

import torch
from peers_job import Job, ours
from peers_torch import loaded, tutorial_loop
from report import add_option, headline, keep, spread

LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1")
WHOLE, STEPS, SIZE = 64, 40, 150


def seconds_of(contestant: Callable[[Job], Callable[[], object]], job: Job) -> float:
    """Processor seconds of a whole job, from what some of its filters take after a first step."""
    contestant(dataclasses.replace(job, count=1, steps=1))()
    run = contestant(job)
    start = time.process_time()
    run()
    return (time.process_time() - start) * WHOLE / job.count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, default=WHOLE, help="of each layer, by ours")
    parser.add_argument("--naive", type=int, default=2, help="of each layer, by the naive loop")
    add_option(parser)
    given = parser.parse_args()
    print(f"{headline()}; {torch.get_num_threads()} threads", flush=True)
    totals, cases = {"ours": 0.0, "naive": 0.0}, {}
    for layer in LAYERS:
        job = Job("classic", layer, given.filters, STEPS, SIZE)
        found = {"ours": seconds_of(ours(loaded, None), job),
                 "naive": seconds_of(tutorial_loop, dataclasses.replace(job, count=given.naive))}  # fmt: skip
        for name, seconds in found.items():
            totals[name] += seconds
            cases[f"{layer}, {name}"] = spread([seconds], "s", over=found["naive"])
        print(f"  {layer:14s} ours {found['ours']:7.1f} s, naive {found['naive']:7.1f} s", flush=True)
    ratio = totals["naive"] / totals["ours"]
    measured = f"measured with {given.filters} and {given.naive} filters of each layer"
    print(
        f"{WHOLE * len(LAYERS)} filters x {STEPS} steps: ours {totals['ours']:.0f} s, naive {totals['naive']:.0f} s, "
        f"ratio {ratio:.1f} ({measured})"
    )
    cases |= {f"all, {name}": spread([x], "s", over=totals["naive"]) for name, x in totals.items()}
    keep("book", cases, given.json, filters=given.filters, naive=given.naive)


if __name__ == "__main__":
    main()
