"""Makes the table of docs/batch-norm.md from the measurements of examples/batch_norm.rs.

    python3 benches/batch_norm.py OUT/batch_norm.csv

For every set, mode of the attack and number of batches: validation accuracy averaged over the last third of the epochs,
mean ± standard deviation over seeds; and by how much robust accuracy changes between consecutive epochs there (root
mean square of the differences, mean over seeds). In percent. Needs only the standard library.
"""

import csv
import statistics
import sys
from collections import defaultdict

COLUMNS = ["clean", "clean worst", "robust", "robust worst"]


def main(path):
    runs = defaultdict(lambda: defaultdict(list))
    with open(path, newline="") as file:
        for name, mode, seed, epoch, batches, *accuracy in csv.reader(file):
            runs[name, mode, int(batches)][int(seed)].append((int(epoch), [100 * float(a) for a in accuracy]))
    print("| data | attack_bn | recalibrate_bn | " + " | ".join(COLUMNS) + " | robust, epoch to epoch |")
    print("|---|---|---|" + "---|" * (len(COLUMNS) + 1))
    for (name, mode, batches), seeds in sorted(runs.items()):
        ends, moves = [], []
        for epochs in seeds.values():
            values = [accuracy for _, accuracy in sorted(epochs)]
            end = values[-max(2, len(values) // 3) :]
            ends.append([statistics.mean(column) for column in zip(*end)])
            steps = [0.0] if len(end) < 2 else [b[2] - a[2] for a, b in zip(end, end[1:])]
            moves.append(statistics.mean(step * step for step in steps) ** 0.5)
        spread = lambda column: statistics.stdev(column) if len(column) > 1 else 0.0
        cells = [f"{statistics.mean(column):.1f} ± {spread(column):.1f}" for column in zip(*ends)]
        print(f"| {name} | {mode} | {batches or 'off'} | " + " | ".join(cells) + f" | {statistics.mean(moves):.1f} |")


if __name__ == "__main__":
    main(sys.argv[1])
