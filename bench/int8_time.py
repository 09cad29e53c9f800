"""From the exported float ONNX file of ResNet-50 to the written int8 file, with 32 images, beside the peers.

The weights are random: time does not depend on them. Every call runs in this process, after all imports, on files that
lie in the page cache; exporting is nobody's. ONNX Runtime's preprocessing, which its guide asks for, is in its time.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.table import Table

from bench.int8_peers import Peer, feeds_of, for_time, load_all
from bench.structured import MIB, Logits
from bench.timing import interleaved, ratio_spread
from tinypress import quantize_onnx
from tinypress.float_onnx import to_float_onnx
from tinypress.task import Split

IMAGES = 32


def measure(repeats: int, images: int = IMAGES) -> dict[str, Any]:
    """Seconds of ours and of each peer in turn, sizes of the files, and how many times faster ours is than each."""
    torch.manual_seed(0)
    model = Logits(
        transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000))
    ).eval()
    samples = Split((torch.randn(images, 3, 224, 224),), torch.zeros(images))
    load_all()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "float.onnx"
        proto = to_float_onnx(model, (samples.inputs[0][:2],))
        source.write_bytes(proto.SerializeToString())
        feeds = feeds_of([value.name for value in proto.graph.input], samples.inputs)
        targets = {name: Path(folder) / f"{number}.onnx" for number, name in enumerate(("ours", *for_time()))}

        def with_peer(peer: Peer, target: Path) -> Callable[[], object]:
            return lambda: peer(source, target, feeds)

        # none of the peers compares its file with anything
        calls: dict[str, Callable[[], object]] = {
            "ours": lambda: quantize_onnx(source, targets["ours"], samples, check=False)
        }
        calls |= {name: with_peer(peer, targets[name]) for name, peer in for_time().items()}
        timings = interleaved(calls, repeats, room_bytes=dict.fromkeys(calls, 512 * MIB))
        written = {name: _written_bytes(target) for name, target in targets.items()}
        return {
            "images": images,
            "float_bytes": source.stat().st_size,
            **{
                name: {**timing.as_json(), "bytes": written[name]}
                | ({"times_faster": ratio_spread(timing, timings["ours"])} if name != "ours" else {})
                for name, timing in timings.items()
            },
        }


def table(row: dict[str, Any]) -> Table:
    """What ``measure`` found, a line each."""
    made = Table("to int8", "seconds", "spread", "processor seconds", "file MB", "ours is faster")
    made.title = f"ResNet-50 from a float ONNX file with {row['images']} images"
    for name in ("ours", *for_time()):
        found = row[name]
        faster = found.get("times_faster")
        made.add_row(
            name,
            f"{found['median_ms'] / 1e3:.1f}",
            f"{found['low_ms'] / 1e3:.1f} to {found['high_ms'] / 1e3:.1f}",
            f"{statistics.median(found['processor_ms']) / 1e3:.1f}",
            f"{found['bytes'] / 1e6:.1f}",
            f"{faster['ratio']:.1f}x ({faster['low']:.1f} to {faster['high']:.1f})" if faster else "",
        )
    return made


def _written_bytes(target: Path) -> int:
    """Bytes of the ONNX file with what lies outside of it, or of OpenVINO's two."""
    return sum(part.stat().st_size for part in target.parent.glob(f"{target.stem}.*"))
