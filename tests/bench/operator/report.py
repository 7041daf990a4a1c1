"""Medians, ratios, and the table that is printed."""

import statistics

# (what a person reads, step, Pitcrew's time, JobSet's time)
ROWS = [
    ("created → all pods run", "created", "pods run", "pods run"),
    ("created → all ranks train", "created", "all train", None),
    ("one pod fails → its replacement runs", "one replaced", "pods run", "pods run"),
    ("one pod fails → all ranks train again", "one replaced", "all train", None),
    ("gang restarted after a failure", "gang restarted", "all train", "pods run"),
    ("suspended and resumed with new pods", "suspended and resumed", "pods run", "pods run"),
    ("deleted → no pod is left", "deleted", "gone", "gone"),
]
STEPS = ["created", "one replaced", "gang restarted", "suspended and resumed", "deleted"]
NOTES = """\
one pod fails: Pitcrew makes a new pod and restarts all ranks in a new epoch. JobSet's is that of a Job that replaces pods by itself
  (backoffLimit; after Kubernetes' back-off of 10 s): nothing tells the other pods. The gang as a whole: next row.
gang restarted: Pitcrew restarts all ranks inside their pods (a rank crashed). JobSet deletes all pods and makes new ones (a pod failed,
  backoffLimit 0): its in-place restart is alpha, and needs an agent in each pod.
suspended and resumed: the same work on both sides, all pods deleted and made anew."""


def median(rounds, step, what):
    values = [one[step]["seconds"][what] for one in rounds if step in one and what in one[step]["seconds"]]
    return statistics.median(values) if values else None


def cost(rounds, side, step):
    """Medians of requests and processor seconds: the controller's own, and those of the whole control plane."""
    steps = [one[step] for one in rounds if step in one]
    if not steps:
        return None
    own = side.daemons()
    return {
        "requests": statistics.median(one["requests"] for one in steps),
        "controller": statistics.median(sum(one["cpu"].get(name, 0) for name in own) for one in steps),
        "plane": statistics.median(sum(one["cpu"].get(name, 0) for name in ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler"))
                                   for one in steps),
    }


def summary(sides):
    """sides: {name: (side, rounds)} → what the table and the report show."""
    rows = []
    for title, step, ours, theirs in ROWS:
        row = {"what": title, "Pitcrew": median(sides["Pitcrew"][1], step, ours) if "Pitcrew" in sides else None}
        row["JobSet"] = median(sides["JobSet"][1], step, theirs) if theirs and "JobSet" in sides else None
        row["ratio"] = row["Pitcrew"] / row["JobSet"] if row["Pitcrew"] and row["JobSet"] else None
        rows.append(row)
    costs = {name: {step: cost(rounds, side, step) for step in STEPS} for name, (side, rounds) in sides.items()}
    memory = {name: {daemon: [statistics.median(one["memory"][daemon][i] for one in rounds) for i in (0, 1)] for daemon in side.daemons()}
              for name, (side, rounds) in sides.items()}
    for name, (_, rounds) in sides.items():
        memory[name][f"pitcrew-swarm ({name}'s pods)"] = [statistics.median(one["swarm memory"][i] for one in rounds) for i in (0, 1)]
    return {"times": rows, "costs": costs, "memory_mb": memory}


def show(result):
    def cell(value, unit=" s", digits=2):
        return "–" if value is None else f"{value:.{digits}f}{unit}"

    print(f"\n{'':42}{'Pitcrew':>10}{'JobSet':>10}{'ratio':>8}")
    for row in result["times"]:
        print(f"{row['what']:42}{cell(row['Pitcrew']):>10}{cell(row['JobSet']):>10}{cell(row['ratio'], '×'):>8}")
    print(f"\n{'':42}{'requests':>10}{'controller':>12}{'control plane':>15}   (CPU)")
    for name, steps in result["costs"].items():
        for step, one in steps.items():
            if one:
                print(f"{name + ': ' + step:42}{one['requests']:>10.0f}{cell(one['controller']):>12}{cell(one['plane']):>15}")
    print()
    for name, daemons in result["memory_mb"].items():
        for daemon, (now, most) in daemons.items():
            print(f"{daemon:42}{now:>10.0f} MB resident, {most:.0f} MB at most")
    print(f"\n{NOTES}")
