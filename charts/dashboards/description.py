"""What the dashboards show: the one place where panels are written. generate.py makes Grafana's JSON of it.

A panel is a title, one or more (query, legend) pairs, and how to draw them. `of` says whose metrics it needs: operator,
launcher or agent. The first row of each dashboard is what a person needs at three in the morning.
"""

RED, ORANGE, YELLOW, GREEN, BLUE, GREY = "red", "orange", "yellow", "green", "blue", "text"


def panel(title, queries, *, kind="timeseries", unit="short", width=8, height=7, of="operator", help="", thresholds=None,
          stack=False, minimum=0, maximum=None, decimals=None, columns=None, value="Value", text=None):
    if isinstance(queries, str):
        queries = [(queries, "")]
    return {"title": title, "queries": queries, "kind": kind, "unit": unit, "width": width, "height": height, "of": of,
            "help": help, "thresholds": thresholds or [(None, GREEN)], "stack": stack, "minimum": minimum,
            "maximum": maximum, "decimals": decimals, "columns": columns, "value": value, "text": text}


def stat(title, query, unit="short", **more):
    more.setdefault("width", 3)
    more.setdefault("height", 4)
    return panel(title, [(query, more.pop("legend", ""))], kind="stat", unit=unit, **more)


JOB = 'namespace="$namespace",job="$job"'
# Pods of a job are <job>-<first 5 of its UID>-<serial>.
PODS = 'namespace="$namespace",pod=~"$job-[0-9a-f]{5}-[0-9]+"'
# The nodes that the job's ranks are on now, to be multiplied with what a node's agent says.
ON_ITS_NODES = "* on(node) group_left() (group by (node) (pitcrew_rank_step{%s}))" % JOB

# Agents have the process's own metrics too.
OF_OPERATORS = " * on(instance) group_left() group by (instance) (leader_election_master_status)"

FLEET = {
    "uid": "pitcrew-fleet", "title": "Pitcrew / Fleet", "variables": [],
    "about": "Nodes, GPUs and jobs of the whole cluster.",
    "rows": [
        ("Now", [
            stat("Unhealthy nodes", "count(pitcrew_node_healthy == 0) or vector(0)", of="agent",
                 thresholds=[(None, GREEN), (1, RED)], help="Nodes on which a rule of severity Fault holds."),
            stat("Cordons refused", "sum(pitcrew_node_cordon_refused) or vector(0)", of="agent",
                 thresholds=[(None, GREEN), (1, RED)],
                 help="The breaker: unhealthy nodes that stay in use because the CordonBudget has no token left."),
            stat("GPUs missing", "sum(pitcrew_gpu_missing) or vector(0)", of="agent", thresholds=[(None, GREEN), (1, RED)]),
            stat("Jobs failing to train", 'count(pitcrew_job_info{phase=~"Recovering|Failed"}) or vector(0)',
                 thresholds=[(None, GREEN), (1, ORANGE)], help="Jobs that are Recovering or Failed."),
            stat("Jobs training", 'count(pitcrew_job_info{phase="Running"}) or vector(0)'),
            stat("Jobs waiting", 'count(pitcrew_job_info{phase=~"Pending|Starting"}) or vector(0)',
                 thresholds=[(None, GREEN), (1, YELLOW)]),
            stat("Goodput", 'sum(pitcrew_job_seconds{part="training"}) / sum(pitcrew_job_seconds{part!="queued"})',
                 "percentunit", thresholds=[(None, RED), (0.8, YELLOW), (0.95, GREEN)],
                 help="Of all jobs together, over their whole lives."),
            stat("Leader", "max(leader_election_master_status)", thresholds=[(None, RED), (1, GREEN)],
                 text={"0": "none", "1": "leads"}),
        ]),
        ("Jobs", [
            panel("Jobs by phase", [('count by (phase) (pitcrew_job_info)', "{{phase}}")], stack=True),
            panel("Tokens per second", [('sum by (namespace, job) (pitcrew_job_tokens_per_second)', "{{namespace}}/{{job}}")],
                  stack=True),
            panel("Recoveries", [('sum by (cause) (increase(pitcrew_recovery_seconds_count[5m]))', "{{cause}}")], stack=True,
                  help="Within five minutes each, by cause."),
        ]),
        ("Nodes", [
            panel("Nodes by state", [
                ("count(pitcrew_node_healthy == 1)", "healthy"), ("count(pitcrew_node_healthy == 0)", "unhealthy"),
                ("sum(pitcrew_node_quarantined)", "quarantined"), ("sum(pitcrew_node_held)", "held by people")], of="agent"),
            panel("Verdicts", [("count by (node, rule, severity) (pitcrew_verdict)", "{{node}} {{rule}} ({{severity}})")], of="agent",
                  stack=True, help="Which nodes, and why: `pitcrew nodes NAME` has the rest."),
            panel("Cordons", [("sum(increase(pitcrew_cordons_total[10m]))", "cordoned"),
                              ("sum(increase(pitcrew_uncordons_total[10m]))", "taken back")], of="agent",
                  help="Within ten minutes."),
        ]),
        ("GPUs", [
            panel("GPUs", [("sum(pitcrew_gpu_expected)", "expected"), ("sum(pitcrew_gpu_count)", "there")], of="agent"),
            panel("Utilisation", [("avg by (node) (DCGM_FI_DEV_GPU_UTIL)", "{{node}}")], unit="percent", maximum=100, of="agent"),
            panel("Tensor cores active", [("avg by (node) (DCGM_FI_PROF_PIPE_TENSOR_ACTIVE)", "{{node}}")], unit="percentunit",
                  maximum=1, of="agent", help="High and steady: BF16 is really used."),
            panel("Power", [("sum by (node) (DCGM_FI_DEV_POWER_USAGE)", "{{node}}")], unit="watt", of="agent"),
            panel("Hottest GPU", [("max by (node) (DCGM_FI_DEV_GPU_TEMP)", "{{node}}")], unit="celsius", of="agent"),
            panel("XIDs", [("sum by (node, xid) (increase(pitcrew_gpu_xid_total[10m]))", "{{node}} XID {{xid}}")], of="agent"),
        ]),
        ("Network and file systems", [
            panel("EFA traffic", [("sum by (node) (rate(pitcrew_efa_rx_bytes_total[2m]))", "{{node}} received"),
                                  ("sum by (node) (rate(pitcrew_efa_tx_bytes_total[2m]))", "{{node}} sent")], unit="Bps", of="agent"),
            panel("EFA sent again", [("sum by (node) (rate(pitcrew_efa_retransmitted_packets_total[2m]))", "{{node}}")],
                  unit="pps", of="agent"),
            panel("Lustre", [("sum(rate(pitcrew_lustre_read_bytes_total[2m]))", "read"),
                             ("sum(rate(pitcrew_lustre_write_bytes_total[2m]))", "written")], unit="Bps", of="agent"),
        ]),
    ],
}

JOB_BOARD = {
    "uid": "pitcrew-job", "title": "Pitcrew / Job", "variables": ["namespace", "job"],
    "about": "One TrainingJob: is it training, how fast, what did it cost.",
    "annotations": True,
    "rows": [
        ("Now", [
            stat("Phase", "pitcrew_job_info{%s}" % JOB, legend="{{phase}}", text="legend",
                 help="Pending, Starting, Running, Recovering, Suspended, Succeeded or Failed."),
            stat("Last step", "time() - pitcrew_job_progress_time_seconds{%s}" % JOB, "s", decimals=0,
                 thresholds=[(None, GREEN), (120, YELLOW), (600, RED)], help="How long ago the last known step was done."),
            stat("Done", "pitcrew_job_step{%s} / pitcrew_job_total_steps{%s}" % (JOB, JOB), "percentunit", decimals=0),
            stat("Replicas missing", "pitcrew_job_replicas{%s} - pitcrew_job_replicas_ready{%s}" % (JOB, JOB),
                 thresholds=[(None, GREEN), (1, RED)]),
            stat("Durable checkpoint", "time() - pitcrew_job_checkpoint_durable_time_seconds{%s}" % JOB, "s", decimals=0,
                 thresholds=[(None, GREEN), (1800, YELLOW), (7200, RED)], help="Its age: what a lost cluster would cost."),
            stat("Memory checkpoint", "time() - pitcrew_job_checkpoint_memory_time_seconds{%s}" % JOB, "s", decimals=0,
                 thresholds=[(None, GREEN), (300, YELLOW)], help="Its age: what a lost node would cost."),
            stat("Restarts", "pitcrew_job_restarts{%s}" % JOB, thresholds=[(None, GREEN), (5, YELLOW), (15, RED)]),
            stat("Goodput", "pitcrew_job_goodput_ratio{%s}" % JOB, "percentunit", decimals=0,
                 thresholds=[(None, RED), (0.8, YELLOW), (0.95, GREEN)]),
        ]),
        ("Training", [
            panel("Loss", [("pitcrew_rank_loss{%s,rank=\"0\"}" % JOB, "loss"),
                           ("pitcrew_rank_gauge{%s,rank=\"0\",name=\"held_out_loss\"}" % JOB, "held out")],
                  of="launcher", minimum=None, width=6),
            panel("Tokens per second", [("max(pitcrew_tokens_per_second{%s})" % JOB, "tokens/s")], of="launcher", width=6),
            panel("Step", [("min(pitcrew_rank_step{%s})" % JOB, "slowest rank"),
                           ("pitcrew_job_checkpoint_durable_step{%s}" % JOB, "durable checkpoint"),
                           ("pitcrew_job_checkpoint_memory_step{%s}" % JOB, "memory checkpoint")], of="launcher", width=6),
            panel("Gradient norm", [("pitcrew_rank_gauge{%s,rank=\"0\",name=\"gradient_norm\"}" % JOB, "norm")], of="launcher", width=6),
            panel("MFU", [("max(pitcrew_rank_gauge{%s,name=\"mfu\"})" % JOB, "MFU")], unit="percentunit", maximum=1,
                  of="launcher", width=12,
                  help="Model FLOPs of a step, attention causal and recomputing not counted, over the GPUs' dense BF16 peak."),
            panel("Checkpoint stall", [("max(pitcrew_rank_gauge{%s,name=\"stall_seconds\"})" % JOB, "worst rank")], unit="s",
                  of="launcher", width=12, help="How long the last step waited for checkpoints."),
        ]),
        ("What it cost", [
            panel("Where the time went", [("pitcrew_job_seconds{%s}" % JOB, "{{part}}")], unit="s", stack=True),
            panel("Age of checkpoints", [
                ("time() - pitcrew_job_checkpoint_durable_time_seconds{%s}" % JOB, "durable"),
                ("time() - pitcrew_job_checkpoint_memory_time_seconds{%s}" % JOB, "in memory")], unit="s"),
            panel("Recoveries", [("pitcrew_job_recovery_time_seconds{%s}" % JOB, "")], kind="table",
                  columns=["epoch", "cause", "rung", "node"], value="when", unit="dateTimeAsIso", help="The last ten, with their times."),
        ]),
        ("Ranks", [
            panel("Seconds per step", [("min by (rank) (1 / (rate(pitcrew_rank_step{%s}[1m]) > 0))" % JOB, "rank {{rank}}")],
                  unit="s", of="launcher",
                  help="One that is higher than the others holds all of them up."),
            panel("Waiting for data", [("max by (rank) (pitcrew_rank_gauge{%s,name=\"data_wait_seconds\"})" % JOB, "rank {{rank}}")], unit="s",
                  of="launcher", help="Before the last step."),
            panel("Own time of ranks", [
                ("sum by (rank) (pitcrew_rank_gauge{%s,name=~\"data_wait_seconds|compute_seconds|optimizer_seconds\"})" % JOB,
                 "rank {{rank}}")], unit="s", of="launcher",
                  help="What a rank does itself in a step. The others wait for the one that takes longest."),
            panel("In collectives", [("max by (rank) (avg_over_time(pitcrew_rank_in_collective{%s}[1m]))" % JOB, "rank {{rank}}")],
                  unit="percentunit", maximum=1, of="launcher",
                  help="The straggler is the rank that is in collectives least: the others wait there for it."),
            panel("Phase of ranks", [("count by (phase) (pitcrew_rank_phase{%s} == 1)" % JOB, "{{phase}}")], stack=True,
                  of="launcher"),
            panel("Memory copies", [("sum(rate(pitcrew_memory_sent_bytes_total{%s}[1m]))" % JOB, "sent"),
                                    ("sum(rate(pitcrew_memory_received_bytes_total{%s}[1m]))" % JOB, "received")], unit="Bps",
                  of="launcher", help="Checkpoints in memory, copied to peers."),
            panel("Launchers connected", [("sum(pitcrew_channel_connected{%s})" % JOB, "connected"),
                                          ("pitcrew_job_replicas{%s}" % JOB, "replicas")], of="launcher"),
        ]),
        ("Its GPUs and nodes", [
            panel("Tensor cores active", [("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{%s}" % PODS, "{{node}} GPU {{gpu}}")],
                  unit="percentunit", maximum=1, of="agent"),
            panel("GPU memory used", [("DCGM_FI_DEV_FB_USED{%s} / DCGM_FI_DEV_FB_TOTAL{%s}" % (PODS, PODS), "{{node}} GPU {{gpu}}")],
                  unit="percentunit", maximum=1, of="agent", help="The headroom for a larger batch."),
            panel("EFA traffic", [("sum by (node) (rate(pitcrew_efa_rx_bytes_total[2m])) " + ON_ITS_NODES, "{{node}} received"),
                                  ("sum by (node) (rate(pitcrew_efa_tx_bytes_total[2m])) " + ON_ITS_NODES, "{{node}} sent")], unit="Bps",
                  of="agent", help="High and steady: EFA is used right. A drop: a fault. Near zero while training: TCP is in use."),
            panel("EFA sent again", [("sum by (node) (rate(pitcrew_efa_retransmitted_packets_total[2m])) " + ON_ITS_NODES, "{{node}}")],
                  unit="pps", of="agent"),
            panel("File system", [("sum by (node) (rate(pitcrew_lustre_read_bytes_total[2m])) " + ON_ITS_NODES, "{{node}} read"),
                                  ("sum by (node) (rate(pitcrew_lustre_write_bytes_total[2m])) " + ON_ITS_NODES, "{{node}} written")],
                  unit="Bps", of="agent"),
            panel("File system latency", [("max by (node) (pitcrew_lustre_wait_seconds) " + ON_ITS_NODES, "{{node}}")], unit="s",
                  of="agent"),
        ]),
    ],
}

RECOVERY = {
    "uid": "pitcrew-recovery", "title": "Pitcrew / Recovery", "variables": [],
    "about": "What failed, how long it took to train again, and what it cost.",
    "rows": [
        ("In the time shown", [
            stat("Recoveries", "sum(increase(pitcrew_recovery_seconds_count[$__range]))", decimals=0, width=4),
            stat("Not recovered", "sum(increase(pitcrew_recoveries_failed_total[$__range])) or vector(0)", decimals=0, width=4,
                 thresholds=[(None, GREEN), (1, RED)], help="Failures that ended their job."),
            stat("Half were faster than", "histogram_quantile(0.5, sum by (le) (increase(pitcrew_recovery_seconds_bucket[$__range])))",
                 "s", width=4, thresholds=[(None, GREEN), (15, YELLOW), (60, RED)]),
            stat("Nine of ten were faster than",
                 "histogram_quantile(0.9, sum by (le) (increase(pitcrew_recovery_seconds_bucket[$__range])))", "s", width=4,
                 thresholds=[(None, GREEN), (30, YELLOW), (120, RED)]),
            stat("Steps done again", "sum(increase(pitcrew_recovery_steps_lost_total[$__range])) or vector(0)", decimals=0, width=4),
            stat("GPU-hours lost", "(sum(delta(pitcrew_job_lost_seconds[$__range]) * on(namespace, job) pitcrew_job_gpus) / 3600) or vector(0)",
                 "h", width=4, help="Starting, restoring, stalled and redone, times the GPUs of each job."),
        ]),
        ("Causes", [
            panel("Recoveries by cause", [("sum by (cause) (increase(pitcrew_recovery_seconds_count[5m]))", "{{cause}}")], stack=True),
            panel("Recoveries by rung", [("sum by (rung) (increase(pitcrew_recovery_seconds_count[5m]))", "{{rung}}")], stack=True,
                  help="How far up the ladder they had to go."),
            panel("Seconds to training again", [("sum by (cause) (rate(pitcrew_recovery_seconds_sum[10m])) / "
                                                 "(sum by (cause) (rate(pitcrew_recovery_seconds_count[10m])) > 0)", "{{cause}}")],
                  unit="s", help="Mean of ten minutes."),
        ]),
        ("Where the time goes", [
            panel("By cause", [("sum by (cause) (increase(pitcrew_recovery_seconds_sum[$__range])) > 0", "{{cause}}")], kind="bars",
                  unit="s"),
            panel("By phase", [("sum by (phase) (increase(pitcrew_recovery_phase_seconds_total[$__range]))", "{{phase}}")],
                  kind="bars", unit="s", help="unnoticed: until it was detected; ready: until every slot was connected."),
            panel("By cause and phase", [("topk(10, sum by (cause, phase) (increase(pitcrew_recovery_phase_seconds_total[$__range])) > 0.1)",
                                          "{{cause}}, {{phase}}")],
                  kind="bars", unit="s", help="The ten longest: what to shorten first."),
            panel("GPU-hours lost by cause", [("sum by (cause) (increase(pitcrew_recovery_gpu_seconds_total[$__range])) / 3600", "{{cause}}")],
                  kind="bars", unit="h", width=12, help="From what happened to the next step. Steps done again are in the other."),
            panel("GPU-hours lost by part", [
                ('sum by (part) (delta(pitcrew_job_seconds{part=~"starting|restoring|stalled|redone"}[$__range]) * on(namespace, job) '
                 "group_left() pitcrew_job_gpus) / 3600", "{{part}}")], kind="bars", unit="h", width=12,
                  help="Starts without a failure before them are here too."),
        ]),
        ("Worst", [
            panel("Nodes", [("topk(10, sum by (node) (increase(pitcrew_recoveries_by_node_total[$__range])) > 0)", "{{node}}")],
                  kind="bars", width=12, decimals=0),
            panel("Jobs", [("topk(10, sum by (namespace, job) (pitcrew_job_restarts) > 0)", "{{namespace}}/{{job}}")], kind="bars",
                  width=12),
        ]),
    ],
}

OPERATOR = {
    "uid": "pitcrew-operator", "title": "Pitcrew / Operator", "variables": [],
    "about": "The control plane itself.",
    "rows": [
        ("Now", [
            stat("Leader", "max(leader_election_master_status)", thresholds=[(None, RED), (1, GREEN)],
                 text={"0": "none", "1": "leads"}, width=4),
            stat("Launchers connected", "sum(pitcrew_channel_sessions)", width=4),
            stat("Jobs waiting for work", "sum(workqueue_depth)", width=4, thresholds=[(None, GREEN), (100, YELLOW), (1000, RED)]),
            stat("Oldest reconcile", "max(workqueue_longest_running_processor_seconds)", "s", width=4,
                 thresholds=[(None, GREEN), (10, YELLOW), (60, RED)]),
            stat("Failed reconciles", "sum(increase(controller_runtime_reconcile_errors_total[10m]))", width=4, decimals=0,
                 thresholds=[(None, GREEN), (1, YELLOW), (50, RED)], help="Within ten minutes."),
            stat("API server, slowest 1 %",
                 "histogram_quantile(0.99, sum by (le) (rate(rest_client_request_duration_seconds_bucket[5m])))", "s", width=4,
                 of="operator-client", thresholds=[(None, GREEN), (1, YELLOW), (5, RED)]),
        ]),
        ("Work", [
            panel("Reconciles", [("sum by (result) (rate(controller_runtime_reconcile_total[2m]))", "{{result}}")], unit="ops", stack=True),
            panel("Queue", [("sum(workqueue_depth)", "ready"), ("sum(workqueue_waiting)", "waiting for their time"),
                            ("sum(controller_runtime_active_workers)", "under way")]),
            panel("Waiting and working", [
                ("sum(rate(workqueue_queue_seconds_total[2m])) / (sum(rate(workqueue_adds_total[2m])) > 0)", "waiting"),
                ("sum(rate(workqueue_work_seconds_total[2m])) / (sum(rate(workqueue_adds_total[2m])) > 0)", "working")], unit="s",
                  help="Of one reconcile, on average."),
        ]),
        ("API server", [
            panel("Requests", [("sum by (method, code) (rate(rest_client_requests_total[2m]))", "{{method}} {{code}}")], unit="reqps",
                  stack=True, of="operator-client"),
            panel("Latency", [("histogram_quantile(0.99, sum by (le, verb) (rate(rest_client_request_duration_seconds_bucket[5m])))",
                               "{{verb}} 99 %")], unit="s", of="operator-client"),
            panel("Held back", [("sum(rate(pitcrew_client_throttled_total[2m]))", "by the client's limit"),
                                ("sum(rate(pitcrew_progress_writes_held_back_total[2m]))", "progress writes"),
                                ("sum(rate(pitcrew_events_dropped_total[2m]))", "events dropped")], unit="ops"),
        ]),
        ("Launchers", [
            panel("Connections", [("sum(pitcrew_channel_sessions)", "open")]),
            panel("Opened", [("sum by (result) (rate(pitcrew_channel_opened_total[2m]))", "{{result}}")], unit="ops", stack=True),
            panel("Messages", [("sum(rate(pitcrew_channel_messages_total[2m]))", "taken"),
                               ("sum(rate(pitcrew_channel_bad_messages_total[2m]))", "passed over")], unit="ops"),
        ]),
        ("The process", [
            panel("Memory", [("process_resident_memory_bytes" + OF_OPERATORS, "{{pod}}")], unit="bytes"),
            panel("CPU", [("rate(process_cpu_seconds_total[2m])" + OF_OPERATORS, "{{pod}}")], unit="percentunit"),
            panel("Objects in the caches", [("sum by (kind) (pitcrew_cached_objects)", "{{kind}}")]),
        ]),
    ],
}

DASHBOARDS = {"fleet": FLEET, "job": JOB_BOARD, "recovery": RECOVERY, "operator": OPERATOR}
VARIABLES = {"namespace": "label_values(pitcrew_job_info, namespace)",
             "job": 'label_values(pitcrew_job_info{namespace="$namespace"}, job)'}
ANNOTATION = "pitcrew_job_recovery_time_seconds{%s} * 1000" % JOB
