"""What of the GPU benchmarks needs no GPU: python3 -m unittest discover -s tests/bench/trainer -p bench_test.py"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import checkpoint_gpu  # noqa: E402
import curve  # noqa: E402
import gpu_case  # noqa: E402
import kernels  # noqa: E402
import llmc  # noqa: E402
from cases import CASES, REQUIRED, flops_per_token, ours_config, parameters  # noqa: E402
from results import Results  # noqa: E402

HERE = dict(commit="abc", changed=False, gpu="", time="", machine="")


class Cases(unittest.TestCase):
    def test_sizes_are_those_of_the_names(self):
        for case, millions in (("124m", 124), ("1558m", 1558), ("1240m", 1240), ("8b", 8030)):
            p, c = parameters(case), CASES[case]
            embeddings = 0 if c.get("tieEmbeddings", c["kind"] == "gpt2") else p["head"]
            total = c["layers"] * (p["qkv"] + p["out"] + p["up"] + p["down"]) + p["head"] + embeddings
            self.assertAlmostEqual(total / 1e6 / millions, 1, delta=0.01)

    def test_eight_billion_keeps_one_gradient_and_remainders_and_accumulates_eight_times(self):
        config = ours_config("8b", 5, "t.bin")
        self.assertEqual(config["optimizer"]["master"], "remainder")
        self.assertEqual(config["batch"]["sequences"], config["batch"]["micro"] * config["batch"]["passes"])
        self.assertGreaterEqual(config["batch"]["passes"], 8)
        self.assertEqual(config["recompute"], ["block"])

    def test_every_case_has_its_peers(self):
        names = [name for name, _ in gpu_case.sides("1558m")]
        self.assertEqual(names, ["ours", "ours, own attention", "llm.c -r 0 -ge 0", "llm.c -r 0 -ge 2", "llm.c -r 1 -ge 0", "llm.c -r 1 -ge 2", "PyTorch compile, autocast"])
        self.assertEqual([name for name, _ in gpu_case.sides("8b")], ["ours", "ours, own attention", "PyTorch compile, fits"])
        self.assertAlmostEqual(flops_per_token("124m"), 6 * 123.6e6 + 6 * 12 * 768 * 1024, delta=2e7)


class Llmc(unittest.TestCase):
    def test_the_pinned_commit_is_built_with_cudnn_where_its_headers_are(self):
        clone, checkout, make = llmc.build_commands("/x", cudnn=True)
        self.assertIn(llmc.SOURCE, clone)
        self.assertEqual(checkout[-1], "f1e2ace")
        self.assertIn("USE_CUDNN=1", make)
        # Else nvcc's default architecture would be translated when it starts.
        self.assertIn("GPU_COMPUTE_CAPABILITY=90", make)
        self.assertNotIn("USE_CUDNN=1", llmc.build_commands("/x")[2])

    def test_libraries_are_linked_by_the_names_that_the_linker_looks_for(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            cuda, wheels = folder / "cuda", folder / "wheels"
            for file in (cuda / "lib/libcublas.so.13", cuda / "lib/libcublasLt.so.13", cuda / "lib64/libnvidia-ml.so.1",
                         wheels / "nvidia/cudnn/lib/libcudnn.so.9", wheels / "include/cudnn_frontend.h"):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
            toolkit = llmc.Toolkit(cuda, wheels)
            toolkit.link(folder / "links")
            self.assertEqual(sorted(path.name for path in (folder / "links").iterdir()), sorted(llmc.LINKED))
            self.assertEqual((folder / "links/libcudnn.so").resolve(), (wheels / "nvidia/cudnn/lib/libcudnn.so.9").resolve())
            self.assertIn(str(wheels / "nvidia/cudnn/lib"), toolkit.environment()["LD_LIBRARY_PATH"])
            # Without the wheels there is no cuDNN, and nothing of it is linked.
            without = llmc.Toolkit(cuda, folder / "nowhere")
            self.assertIsNone(without.cudnn)
            without.link(folder / "others")
            self.assertFalse((folder / "others/libcudnn.so").exists())
            (cuda / "lib/libcublas.so.13").unlink()
            if not any(list(place.glob("libcublas.so.*")) for place in llmc.SYSTEM):
                with self.assertRaisesRegex(OSError, "libcublas.so"):
                    without.link(folder / "lost")

    def test_its_options_are_those_of_its_source(self):
        """Of train_gpt2.cu at the pinned commit, main()'s parser."""
        known = {"-i", "-j", "-e", "-o", "-n", "-y", "-b", "-t", "-d", "-l", "-lg", "-u", "-q", "-c", "-x", "-v", "-m", "-s", "-ge",
                 "-g", "-a", "-f", "-w", "-z", "-r", "-h", "-k", "-pi", "-pf", "-ps", "-pn", "-pr", "-pg", "-sl", "-sg", "-nk", "-nm"}
        command = llmc.command("p", CASES["124m"], "t.bin", 30, llmc.VARIANTS[0], "/out")
        self.assertEqual(set(command[1::2]) - known, set())
        self.assertEqual(len(command) % 2, 1)
        # It divides by this one.
        self.assertGreater(int(dict(zip(command[1::2], command[2::2]))["-v"]), 30)

    def test_a_step_has_the_cases_tokens(self):
        command = llmc.command("p", CASES["1558m"], "t.bin", 30, dict(r=1, ge=2), "/out")
        said = dict(zip(command[1::2], command[2::2]))
        self.assertEqual((said["-e"], said["-b"], said["-t"], said["-d"], said["-r"], said["-ge"]), ("d48", "16", "1024", "16384", "1", "2"))

    def test_its_lines_are_read(self):
        line = "step {:4}/30 | loss 11.0{} (+nanz)| norm 15.2 (+nanz)| lr 3.00e-04 | {:.2f} ms | 49.0% bf16 MFU | 480000 tok/s\n"
        text = "".join(line.format(i, i, 1000.0 if i <= 10 else 125.0) for i in range(1, 31))
        self.assertEqual(llmc.read_steps(text)[0], (1, 11.01, 1000.0))
        self.assertAlmostEqual(llmc.rate(text, 65536), 65536 / 0.125)


class Resumption(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name) / "r.json"
        self.addCleanup(self.folder.cleanup)

    def test_what_was_measured_is_not_measured_again(self):
        first = Results(self.path, "1558m", HERE)
        first.measure("ours", lambda: dict(rate=50e3), 100)
        self.assertIn("time is over", first.measure("llm.c -r 0 -ge 0", lambda: self.fail("no time"), 0)["why"])
        again = Results(self.path, "1558m", HERE)
        self.assertEqual(again.measure("ours", lambda: self.fail("measured twice"), 100)["rate"], 50e3)
        again.measure("llm.c -r 0 -ge 0", lambda: dict(rate=48e3), 100)
        again.measure("llm.c -r 1 -ge 2", lambda: dict(rate=49.1e3), 100)
        ratio = again.ratios(REQUIRED)["llm.c"]
        self.assertEqual(ratio["against"], "llm.c -r 1 -ge 2")
        self.assertAlmostEqual(ratio["ratio"], 50 / 49.1)
        self.assertFalse(ratio["met"])
        self.assertEqual(json.loads(self.path.read_text())["provenance"]["commit"], "abc")

    def test_other_code_is_measured_anew(self):
        Results(self.path, "1558m", HERE).measure("ours", lambda: dict(rate=1), 100)
        self.assertEqual(Results(self.path, "1558m", dict(HERE, commit="def")).measure("ours", lambda: dict(rate=2), 100)["rate"], 2)
        self.assertEqual(Results(self.path, "1558m", dict(HERE, changed=True)).data["sides"], {})

    def test_a_side_that_fails_says_why_and_is_tried_again(self):
        results = Results(self.path, "124m", HERE)

        def fails():
            raise subprocess.CalledProcessError(1, ["make"])

        self.assertIn("make", results.measure("llm.c -r 0 -ge 0", fails, 100)["why"])
        self.assertEqual(results.measure("llm.c -r 0 -ge 0", lambda: dict(rate=3), 100)["rate"], 3)


class Kernels(unittest.TestCase):
    PROFILE = """Processing [x.sqlite]...
Time (%),Total Time (ns),Instances,Avg (ns),Name
60.0,1200000000,100,1,nvjet_sm90_tst_128x256
20.0,400000000,48,1,void attention_backward<128>
10.0,200000000,48,1,rmsnorm_forward
10.0,100000000,1,1,something_else
"""

    def test_a_profile_is_read_by_group_and_step(self):
        seconds = kernels.read_profile(self.PROFILE, 2)
        self.assertEqual(seconds, {"products": 0.6, "attention": 0.2, "norms": 0.1, "other": 0.05})
        with self.assertRaises(ValueError):
            kernels.read_profile("nothing", 1)

    def test_the_table_sets_it_beside_the_limit(self):
        rows = {row["group"]: row for row in kernels.table("1558m", {"products": 0.3, "other": 0.1})}
        flops = 6 * 16 * 1024 * (48 * 12 * 1600 ** 2 + 1600 * 50304)
        self.assertAlmostEqual(rows["products"]["limit"], flops / 785e12, delta=1e-6)
        self.assertAlmostEqual(rows["products"]["share"], flops / 785e12 / 0.3, delta=1e-3)
        self.assertIsNone(rows["norms"]["seconds"])
        self.assertIn("not meas.", kernels.text(kernels.table("8b")))


class Curve(unittest.TestCase):
    def test_sides_within_one_anothers_spread_agree(self):
        flat = lambda end: [9.0] * 10 + [end] * 5  # noqa: E731
        told = curve.compare({"ours": [flat(3.00), flat(3.04), flat(3.02)], "PyTorch": [flat(3.01), flat(3.05), flat(3.03)],
                              "llm.c": [flat(3.30), flat(3.31), flat(3.32)]}, 5)
        self.assertTrue(told["PyTorch and ours"]["within"])
        self.assertFalse(told["llm.c and ours"]["within"])

    def test_bytes_begin_elsewhere_for_each_seed(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "b.bin"
            curve.write_bytes(path, b"abcdef", 2)
            self.assertEqual(path.read_bytes()[1024:][::2], b"cdefab")


class Checkpoint(unittest.TestCase):
    def test_the_worst_pause_and_the_loss_are_read_from_the_step_log(self):
        line = lambda step, seconds, stall: dict(step=step, seconds=seconds, stall=stall, tokensPerSecond=100 / seconds)  # noqa: E731
        plain = [line(i, 0.25, 0) for i in range(1, 61)]
        saving = [line(i, 0.25 + (0.04 if i % 20 == 1 else 0), 0.04 if i % 20 == 1 and i > 1 else 0) for i in range(1, 421)]
        told = checkpoint_gpu.judge(plain, saving, 3.5)
        self.assertEqual((told["saves"], told["worst_stall"]), (21, 0.04))
        self.assertAlmostEqual(told["loss"], 0.0079, delta=0.001)


class WithoutAGpu(unittest.TestCase):
    def test_each_says_that_it_was_not_run(self):
        if gpu_case.shutil.which("nvidia-smi"):
            self.skipTest("there is a GPU")
        self.assertEqual(gpu_case.main(["p", "8b"]), 77)
        self.assertEqual(checkpoint_gpu.main(["p"]), 77)
        self.assertEqual(curve.main(["p"]), 77)


if __name__ == "__main__":
    unittest.main()
