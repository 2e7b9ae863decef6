"""Fill the tables of docs/benchmarks.md from the CSV files.

    python benchmarks/tables.py                 # print them
    python benchmarks/tables.py --write         # put them into the page
    python benchmarks/tables.py --write --machine intel-xeon-2threads

Of each benchmark the file of that machine is taken, or else the newest one, with the most threads. A benchmark without
a file has no section. What stands outside the two markers of the page is left alone.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from common import REPOSITORY, RESULTS
from sections import TEXTS, Text

from omh_mmseg.utils.files import replaced_when_complete

PAGE = REPOSITORY / 'docs' / 'benchmarks.md'
BEGIN, END = '<!-- benchmarks/tables.py writes from here -->', '<!-- to here -->'
Rows = Sequence[Mapping[str, str]]


def table(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    texts = ['| ' + ' | '.join(str(cell) for cell in line) + ' |' for line in lines]
    return '\n'.join(['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header), *texts])


def number(text: str | float) -> str:
    """Three significant digits, no exponent; other text as it is."""
    try:
        value = float(text)
    except ValueError:
        return str(text)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'


def pivot(rows: Rows, index: Mapping[str, str], across: str, values: Mapping[str, str]) -> str:
    """A table with a line per combination of ``index`` and, for each value of ``across``, a column per value.

    Args:
        rows: Of a CSV file.
        index: Header of each column that names a line, by the column of the file.
        across: Column whose values are spread; numbers are put in order.
        values: Format of each figure by its column, with ``{}`` for the value of ``across``.
    """
    spread = list(dict.fromkeys(row[across] for row in rows))
    spread = sorted(spread, key=float) if all(item.isdigit() for item in spread) else spread
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        cells = lines.setdefault(tuple(row[key] for key in index), {})
        cells.update({label.format(row[across]): number(row[column]) for column, label in values.items()})
    header = [label.format(item) for item in spread for label in values.values()]
    return table([*index.values(), *header], [[*key, *(cells.get(name, '') for name in header)]
                                              for key, cells in lines.items()])  # fmt: skip


def plain(rows: Rows, columns: Mapping[str, str]) -> str:
    """A table with a line per row."""
    return table(list(columns.values()), [[number(row[column]) for column in columns] for row in rows])


def requirements(rows: Rows) -> str:
    """What was required, measured, and whether it holds."""
    lines = [
        [row['requirement'], row['figure'], 'yes' if row['holds'] == 'True' else '**no**', row['commit']]
        for row in rows
    ]
    return table(['required', 'measured', 'holds', 'commit'], lines)


def reference_step(rows: Rows) -> str:
    """Seconds and share of the references' manner, by batch."""
    seconds = [{**row, 's': str(float(row['wall_ms']) / 1e3)} for row in rows]
    return pivot(
        seconds, dict(step='step', omh='OMH'), 'batch', dict(s='batch {}: s', wall_ratio='batch {}: of the references')
    )


def host_steps(rows: Rows) -> str:
    """By batch and host; by source; by resolution, K and N."""
    live = [row for row in rows if row['source'] == 'live' and row['omh'] == 'on']
    usual = {key: most_common(row[key] for row in rows) for key in ('batch', 'image_size', 'classes', 'levels')}

    def at_base(found: Rows, *free: str) -> Rows:
        return [row for row in found if all(row[key] == usual[key] for key in usual if key not in free)]

    figures = dict(wall_ms='{}: ms', peak_mib='{}: MiB')
    parts = [
        f'Live, with OMH, {usual["image_size"]} px; time of a step and peak memory over the model by batch:',
        pivot(at_base(live, 'batch'), dict(host='host'), 'batch', figures),
        f'Batch {usual["batch"]}, milliseconds by source:',
        pivot(at_base(rows), dict(host='host', source='source'), 'omh', dict(wall_ms='OMH {}')),
    ]
    for factor, word, source in (('image_size', 'px', 'live'), ('classes', 'K', 'cached'), ('levels', 'N', 'cached')):
        found = [
            row for row in at_base(rows, factor) if (row['host'], row['omh'], row['source']) == ('stego', 'on', source)
        ]
        parts += [
            f'STEGO + OMH, {source}, batch {usual["batch"]}:',
            plain(sorted(found, key=lambda row: float(row[factor])),
                  {factor: word, 'wall_ms': 'ms', 'peak_mib': 'MiB'}),
        ]  # fmt: skip
    return '\n\n'.join(parts)


def most_common(values: Iterable[str]) -> str:
    """The value that occurs most often."""
    seen = list(values)
    return max(dict.fromkeys(seen), key=seen.count)


def plan_time(rows: Rows) -> str:
    """Processor time and iterations without gradient in float64, and the solver's gradient."""
    detached = [row for row in rows if row['gradient'] == 'detach']
    index = dict(centres='centres', entropy_weight='lambda', dtype='type')
    return pivot(detached, index, 'solver', dict(cpu_ms='{}: ms'))


def loader(rows: Rows) -> str:
    """Decoders, then rates by workers."""
    decoders = [row for row in rows if row['what'] == 'decode']
    changes = dict(changed_percent='% of values unlike Pillow', largest_change='by at most')
    rest = [row for row in rows if row['what'] != 'decode']
    return '\n\n'.join(
        [
            plain(decoders, dict(source='decoder', ms_per_item='ms', items_per_s='images/s', **changes)),
            pivot(rest, dict(what='items/s of', source='by'), 'workers', dict(items_per_s='{} workers')),
        ]
    )


def columns(**headers: str) -> Callable[[Rows], str]:
    """`plain` with these columns."""
    return lambda rows: plain(rows, headers)


TABLES: dict[str, Callable[[Rows], str]] = dict(
    requirements=requirements,
    reference_step=reference_step,
    host_steps=host_steps,
    step_share=lambda rows: pivot(rows, dict(what='part'), 'batch', dict(wall_ms='B {}: ms', wall_percent='B {}: %')),
    gpu_rate=columns(
        host='host', step='images from', omh='OMH', wall_ms='ms', images_per_s='images/s',
        share_of_bare='of the bare forward', peak_mib='peak MiB',
    ),
    feature_cache=columns(
        dtype='type', making_ms='ms to make an item', forward_ms='of it forward', mib='MiB', estimated_mib='estimate',
        warm_items_per_s='items/s warm', cold_items_per_s='cold',
    ),
    loader=loader,
    plan_time=plan_time,
    lean_matching=lambda rows: pivot(
        rows, dict(batch='B', coarse='K', fine='K finer', direction='direction'), 'form',
        dict(wall_ms='{}: ms', rss_mib='{}: MiB'),
    ),
    smoothness_energy=lambda rows: pivot(
        rows, dict(side='side', channels='C', classes='K'), 'form', dict(wall_ms='{}: ms', rss_mib='{}: MiB')
    ),
    hidden_positive_loss=lambda rows: pivot(
        rows, dict(batch='batch', patches='patches'), 'form', dict(wall_ms='{}: ms', rss_mib='{}: MiB')
    ),
    neighbour_search=columns(
        search='search', block_s='s per block', extrapolated_minutes='minutes for all rows, extrapolated',
        gflop_per_s='Gflop/s', rss_mib='MiB over the input',
    ),
    evaluation=columns(
        height='height', width='width', what='part', wall_ms='ms', percent_of_prediction='% of prediction',
        images_per_s='images/s',
    ),
    crf=columns(
        backend='back end', height='height', width='width', segmentations='segmentations', wall_ms='ms per picture',
        images_per_second='pictures/s',
    ),
)  # fmt: skip


def read(folder: Path, name: str, machine: str | None = None) -> tuple[Path, list[dict[str, str]]] | None:
    """Path and rows of a benchmark's file: of a machine, or else the newest one with the most threads."""
    found = []
    for path in folder.glob(f'{name}_*.csv'):
        with path.open(newline='') as file:
            rows = list(csv.DictReader(file))
        if rows:
            key = (path.stem == f'{name}_{machine}', rows[0]['date'], int(rows[0]['threads']), path.name)
            found.append((key, path, rows))
    if not found:
        return None
    _, path, rows = max(found, key=lambda item: item[0])
    return path, rows


def section(name: str, text: Text, path: Path, rows: list[dict[str, str]]) -> str:
    """Heading, command, table and what is to be said of it."""
    first = rows[0]
    threads = 'one thread' if first['threads'] == '1' else f'{first["threads"]} threads'
    where = f'{first.get("gpu") or first["cpu"]}, {threads}, load {first["load"]}'
    parts = [f'## {text.title}']
    if text.command:
        parts.append(f'    {text.command}')
    parts += [text.before] if text.before else []
    parts.append(TABLES[name](rows))
    # Requirements are of several runs.
    if name != 'requirements':
        parts.append(f'*{where}, torch {first["torch"]}, commit {first["commit"]}, {first["date"]}.*')
    picture = path.with_suffix('.png')
    if picture.is_file():
        parts.append(f'![{text.title}](../benchmarks/results/{picture.name})')
    parts += [text.after] if text.after else []
    return '\n\n'.join(parts)


def page(folder: Path, machine: str | None = None) -> str:
    """All sections that have a file."""
    found = ((name, text, read(folder, name, machine)) for name, text in TEXTS.items())
    return '\n\n'.join(section(name, text, *item) for name, text, item in found if item is not None)


def filled(current: str, content: str) -> str:
    """A page with other content between its markers.

    Raises:
        ValueError: The page lacks a marker.
    """
    if current.count(BEGIN) != 1 or current.count(END) != 1:
        raise ValueError(f'the page must hold the lines {BEGIN!r} and {END!r} once each')
    before, rest = current.split(BEGIN)
    return f'{before}{BEGIN}\n\n{content}\n\n{END}{rest.split(END)[1]}'


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables or put them into the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument('--results', type=Path, default=RESULTS, help='folder of the CSV files')
    options.add_argument('--machine', help='label in the names of the CSV files to prefer')
    options.add_argument('--write', action='store_true', help=f'put the tables into {PAGE.relative_to(REPOSITORY)}')
    options.add_argument('--page', type=Path, default=PAGE, help='the page')
    args = options.parse_args(argv)
    content = page(args.results, args.machine)
    if not args.write:
        sys.stdout.write(content + '\n')
        return
    updated = filled(args.page.read_text(encoding='utf-8'), content)
    with replaced_when_complete(args.page) as file:
        file.write(updated.encode())


if __name__ == '__main__':
    main()
