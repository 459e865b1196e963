"""An engine on one GPU or on several, as a program: `python -m tests.gpu.shared_engine MODEL RANKS [KEY=VALUE…]`.

Forks the other ranks before it touches a GPU, as each needs a process of its own. Prints JSON: each greedy answer's tokens, and
how many drafts were verified; with `--logprobs` those of the tokens; with `--alone` of requests that come one after the other to an
engine without a prefix cache. With `--next` distributions of the next token, for each of COUNTS; with `--time` how long steps take;
with `--sums` how far sums over ranks are off, and how long they take, beside NCCL's.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from appliance.config.child_environment import rank_environment
from runtime.batch import ModelRunner
from runtime.kernels.launcher import JitLauncher
from runtime.parallel.channel import Channel, open_channels
from runtime.parallel.device_group import PeerGroup, Sum
from runtime.parallel.following import follow
from runtime.parallel.leading import LeadingRunner
from runtime.parallel.peer_memory import share_memory
from runtime.runner.device_building import build_device_runner
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.kernel_choice import choose_kernels
from runtime.settings import EngineSettings
from runtime.speculative.options import speculation_options
from runtime.speculative.source import HeadSource
from tests.bench.steps import measure, step
from tests.support.engine_runs import Answer, build_engine, run_all
from tests.support.next_distributions import COUNTS, next_distributions
from tests.support.shared_requests import requests

STEPS = [(1, 384, 0), (8, 640, 0), (64, 1150, 0), (256, 1280, 0), (0, 0, 2048), (64, 1150, 512)]
ROWS = (1, 8, 64, 256, 512, 2048, 8192)


def settings_of(folder: Path, size: int, given: dict[str, Any]) -> EngineSettings:
    common: dict[str, Any] = {
        "max_total_tokens": 16_384,
        "max_running_requests": 40,
        "chunked_prefill_size": 512,
        "kernels_path": os.environ.get("CASEMATE_TEST_KERNELS", ""),
    }
    return EngineSettings(model_path=str(folder), device="cuda", dtype="bfloat16", tp_size=size, **common | given)


def build(settings: EngineSettings, channel: Channel | None) -> DeviceRunner:
    options = speculation_options(settings)
    head = None
    if options is not None:
        head = HeadSource(Path(settings.speculative_draft_model_path), is_dummy=False, topk=options.shape.topk)
    kernels = choose_kernels(settings, lambda _sentence: None)
    folder = Path(settings.model_path)
    return build_device_runner(folder, settings, kernels, advance=lambda: None, head=head, channel=channel).runner


def check_sums(channel: Channel, *, hidden_size: int = 4096, width: int = 1024) -> dict[str, Any]:
    """Whether sums and joined rows are right, and the same on all ranks; then microseconds of a sum, in a graph of many."""
    device, size, rank = torch.device("cuda"), channel.share.size, channel.share.rank
    group = PeerGroup(
        channel.share, lambda memory: share_memory(memory, channel), JitLauncher(), max_rows=max(ROWS),
        hidden_size=hidden_size, max_samples=512, vocab_size=size * width, dtype=torch.bfloat16, device=device,
    )  # fmt: skip
    found: dict[str, Any] = {}
    for rows in ROWS:
        parts = [_random(rows, hidden_size, seed=each) for each in range(size)]
        hidden = _random(rows, hidden_size, seed=99)
        expected = hidden.float() + torch.stack([part.float() for part in parts]).sum(0)
        for which in (*Sum, *Sum):
            given = hidden.clone()
            group.part(which, rows).copy_(parts[rank])
            group.add_sum(which, given)
            bits = hashlib.sha256(given.view(torch.int16).cpu().numpy().tobytes()).digest()
            is_same = channel.exchange(bits, lambda all_bits: bytes([len(set(all_bits)) == 1])) == b"\x01"
            error = ((given.float() - expected).abs() / expected.abs().clamp(min=1)).max().item()
            found[f"error {rows}"] = max(error, found.get(f"error {rows}", 0.0)) if is_same else "bits differ"
    for rows in (1, 7, 512):
        parts = [_random(rows, width, seed=each) for each in range(size)]
        out = torch.empty(rows, size * width, dtype=torch.bfloat16, device=device)
        for _ in range(3):
            group.logits_part(rows).copy_(parts[rank])
            group.join_logits(out)
        found[f"joined {rows}"] = bool(torch.equal(out, torch.cat(parts, dim=1)))
    store = torch.distributed.FileStore(f"/tmp/ranks-{os.environ['RANKS_KEY']}", size)
    torch.distributed.init_process_group("nccl", store=store, rank=rank, world_size=size)
    for rows in ROWS:
        hidden = torch.zeros(rows, hidden_size, dtype=torch.bfloat16, device=device)

        def ours(hidden: torch.Tensor = hidden) -> None:
            group.add_sum(Sum.ATTENTION, hidden)
            group.add_sum(Sum.FEED_FORWARD, hidden)

        def nccl(hidden: torch.Tensor = hidden) -> None:
            torch.distributed.all_reduce(hidden)
            torch.distributed.all_reduce(hidden)

        for name, run in (("ours", ours), ("nccl", nccl)):
            found[f"{name} {rows}"] = round(_time_in_graph(run, channel) / 2, 2)
    torch.distributed.destroy_process_group()
    return found


def _random(rows: int, width: int, *, seed: int) -> torch.Tensor:
    generator = torch.Generator(device="cuda").manual_seed(seed)
    return torch.randn(rows, width, dtype=torch.bfloat16, device="cuda", generator=generator)


def _time_in_graph(run: Any, channel: Channel, count: int = 20) -> float:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    channel.smallest(0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(count):
            run()
    times = []
    for _ in range(7):
        channel.smallest(0)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / count)
    return sorted(times)[3]


def time_steps(runner: Any) -> dict[str, Any]:
    found = {}
    for decodes, context, chunk in STEPS:
        if decodes * -(-context // 16) + -(-chunk // 16) >= runner.num_pages:
            continue
        found[f"{decodes}x{context}+{chunk}"] = measure(runner, step(runner, decodes, context, chunk), 20)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("ranks", type=int)
    parser.add_argument("--logprobs", action="store_true")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--next", action="store_true")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--sums", action="store_true")
    parser.add_argument("settings", nargs="*")
    options = parser.parse_intermixed_args()
    given = {key: json.loads(value) for key, _, value in (each.partition("=") for each in options.settings)}
    settings = settings_of(options.model, options.ranks, given)
    channel = None
    if options.ranks > 1:
        os.environ["RANKS_KEY"] = str(os.getpid())
        channel = _fork(open_channels(options.ranks))
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(options.ranks)))
        os.environ |= rank_environment(channel.share.rank)
    if options.sums:
        assert channel is not None
        sums = check_sums(channel)
        if channel.is_first:
            sys.stdout.write(json.dumps(sums) + "\n")
        return 0
    runner: DeviceRunner | ModelRunner = build(settings, channel)
    if channel is not None and not channel.is_first:
        follow(runner, channel)
        return 0
    leading = runner if channel is None else LeadingRunner(runner, channel)
    if options.time:
        result: Any = time_steps(leading)
    elif options.next:
        result = [next_distributions(leading, count) for count in COUNTS]
    else:
        cached = {"disable_radix_cache": True} if options.alone else {}
        engine = build_engine(leading, eos_token_ids=[2], context_length=2048, **given | cached)
        asked = requests(5 if options.logprobs else -1)
        answers: dict[tuple[int, int], Answer] = {}
        for together in [[request] for request in asked] if options.alone else [asked]:
            answers |= run_all(engine, together)
        result = {
            "answers": [[request_id, answer.tokens] for (request_id, _), answer in sorted(answers.items())],
            "num_verified": engine.stats().num_verified,
        }
        if options.logprobs:
            result["logprobs"] = [answer.logprobs for _, answer in sorted(answers.items())]
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _fork(channels: list[Channel]) -> Channel:
    for channel in channels[1:]:
        if os.fork() == 0:
            for other in channels:
                if other is not channel:
                    other.close()
            return channel
    for channel in channels[1:]:
        channel.close()
    return channels[0]


if __name__ == "__main__":
    sys.exit(main())
