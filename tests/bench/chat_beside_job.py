"""Chat's tokens a second alone, and while the same machine quantises the model it talks to.

    python -m tests.bench.chat_beside_job [FOLDER]

FOLDER is a checkpoint; without it the demo model, built if need be. Server, engine and job are the
product's own processes. The job quantises with the search, and is cancelled at the end.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

import ixc_client
from ixc_cli.demo_model import build
from tests.bench.record import RESULTS, Goal, Measurement, show, write
from tests.fakes.server_process import running_process


async def _rate(ixc: ixc_client.AsyncClient, options: argparse.Namespace) -> float:
    """Tokens a second, all streams together."""
    sampling = ixc_client.Sampling(max_output_tokens=options.tokens, ignore_eos=True, seed=1)
    began = time.perf_counter()
    answers = await asyncio.gather(
        *(
            ixc.generate(f"Tell me about the number {number}.", sampling=sampling)
            for number in range(options.streams)
        )
    )
    took = time.perf_counter() - began
    return sum(answer.usage.output_tokens for answer in answers) / took


async def _run(options: argparse.Namespace) -> None:
    model = options.model or build()
    alone: list[float] = []
    beside: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        # As people run it: the engine may have all cores.
        flags = ("--threads=0", f"--models-root={folder / 'models'}", "--log-level=warning")
        async with (
            running_process(folder, model, *flags) as served,
            ixc_client.AsyncClient(served.address) as ixc,
        ):
            await _rate(ixc, options)
            for _ in range(options.repeats):
                alone.append(await _rate(ixc, options))
                work = ixc.weights.quantize("", "int4")
                async for progress in work:
                    if progress.stage_index == 2:  # layers: where nearly all of the time goes
                        break
                beside.append(await _rate(ixc, options))
                assert (await ixc.operations.get(work.operation)).state == "running", "too quick"
                await ixc.operations.cancel(work.operation)
                with contextlib.suppress(ixc_client.Cancelled):
                    await work.wait()
                print(f"alone {alone[-1]:.1f} tok/s, beside a job {beside[-1]:.1f}", flush=True)
    measurements = [
        Measurement(name="chat alone", unit="tok/s", values=tuple(alone)),
        Measurement(name="chat beside a quantisation", unit="tok/s", values=tuple(beside)),
    ]
    share = measurements[1].median / measurements[0].median
    goals = [Goal(name="chat keeps 60 % of its rate", ratio=share, at_least=0.6)]
    show(measurements, goals)
    settings = {key: str(value) for key, value in vars(options).items() if key != "output"}
    write(options.output, measurements, goals, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=100, help="of each answer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "chat_beside_job.json")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
