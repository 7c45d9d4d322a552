"""What searching came to, drawn for the report."""

import io

from tasks.checks.benchmark import Benchmark


def drawn(benchmark: Benchmark) -> str:
    """Inline SVG: latencies of both stores, recall over ef_search, and the distances of both stores against each other."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Laid out by hand, titles too: matplotlib's own layout takes half a second.
    figure = Figure(figsize=(12, 3.4))
    figure.subplots_adjust(left=0.05, right=0.99, bottom=0.15, top=0.9, wspace=0.22)
    latency, recall, distances = figure.subplots(1, 3)

    source = benchmark.source
    stores = [("target", benchmark.latency), *([("source", source.latency)] if source else [])]
    for offset, (name, measured) in enumerate(stores):
        heights = [measured.p50_ms, measured.p95_ms, measured.p99_ms]
        latency.bar([x + offset * 0.4 for x in range(3)], heights, width=0.38, label=name)
    latency.set_xticks([x + 0.2 * (len(stores) - 1) for x in range(3)], ["p50", "p95", "p99"])
    latency.set_title(f"Search latency, top {benchmark.k}", y=1)
    latency.set(ylabel="ms")
    latency.legend(frameon=False)

    recall.plot([tried.ef_search for tried in benchmark.sweep], [tried.recall for tried in benchmark.sweep], marker="o")
    if source:
        recall.axhline(source.recall, color="C1", linestyle="--", label="source")
        recall.legend(frameon=False)
    recall.set_title(f"Recall@{benchmark.k} against exact search", y=1)
    recall.set(xlabel="ef_search", ylim=(0, 1.03))

    if source and source.distances:
        pairs = source.distances
        distances.scatter([b for _, b in pairs], [a for a, _ in pairs], s=6, alpha=0.5)
        low, high = min(map(min, pairs)), max(map(max, pairs))
        distances.plot([low, high], [low, high], color="grey", linewidth=0.8)
        distances.set_title("Distances of neighbours that both give", y=1)
        distances.set(xlabel="source", ylabel="target")
    else:
        distances.set_axis_off()
    for axes in (latency, recall, distances):
        axes.spines[["top", "right"]].set_visible(False)
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out)
    return out.getvalue()[out.getvalue().index("<svg") :]
