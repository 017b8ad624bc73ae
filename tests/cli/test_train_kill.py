"""A run of training that is killed, runs out of disk, finds its checkpoint damaged, or learns too fast."""
import os
import random
import resource
import shutil
import signal
import subprocess
import time
import unittest

from fmamba import PROGRAM, good, run
from training import Training

KILLS = 20
SHORT = ("schedule.tokens=960", "schedule.decay_tokens=0", "run.save_every=0")


class Started(Training):
    def start(self, out):
        return subprocess.Popen([PROGRAM, *map(str, self.command(out))], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Interrupted(Started):
    def kill_later(self, out, seconds, while_saving):
        """Kills a run after so many seconds, or then at the first moment that it saves; False when it ended before."""
        process = self.start(out)
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.0005)
        while while_saving and process.poll() is None and not list((self.d / out).glob("step-*.tmp")):
            pass
        killed = process.poll() is None
        if killed:
            process.send_signal(signal.SIGKILL)
        process.wait()
        return killed

    def test_killed_at_twenty_moments(self):
        begun = time.monotonic()
        self.assertEqual(run(*self.command("whole")).returncode, 0)
        whole = time.monotonic() - begun
        seed = random.randrange(1 << 32)
        draw = random.Random(seed)
        kills, saving, out = 0, 0, "killed-0"
        while kills < KILLS:
            if not self.kill_later(out, draw.uniform(0.0, 2.0 * whole / KILLS), kills % 2):
                out = f"killed-{kills}"  # it ended before it was killed: another one from the begin
                continue
            kills += 1
            saving += bool(list((self.d / out).glob("step-*.tmp")))
        self.assertGreater(saving, 0, "no kill came within a save")
        self.assertEqual(run(*self.command(out)).returncode, 0)
        self.same_checkpoint(self.checkpoints("whole")[-1], self.checkpoints(out)[-1])
        want = {line["step"]: line for line in self.log("whole") if "loss" in line}
        for line in self.log(out):  # steps done again after a kill are there twice
            if "loss" in line:
                self.assertEqual([line[k] for k in ("loss", "grad_norm", "rate")],
                                 [want[line["step"]][k] for k in ("loss", "grad_norm", "rate")], f"seed {seed}")
        self.assertEqual(self.log(out)[-1]["val_loss"], self.log("whole")[-1]["val_loss"])


class Disk(Started):
    """Half a run, the other half without room for what it saves, then with room again: the bits of a run that had room."""

    def half(self, out):
        """SIGTERM somewhere after the first save."""
        process = self.start(out)
        while process.poll() is None and not self.checkpoints(out):
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(), 1, "it ended before it was stopped")

    def check(self, out, p):
        """p failed for want of room: it says for what, and the checkpoint before is what it was."""
        text = p.stderr.decode(errors="replace")
        self.assertEqual(p.returncode, 1, text)
        self.assertRegex(text, r"cannot write \d+ more bytes to \S+/step-\d+\.tmp/\w+\.safetensors: ")
        self.assertEqual(list((self.d / out).glob("step-*.tmp")), [])

    def finish(self, out):
        self.assertEqual(run(*self.command("whole")).returncode, 0)
        self.assertEqual(run(*self.command(out)).returncode, 0)
        self.same_checkpoint(self.checkpoints("whole")[-1], self.checkpoints(out)[-1])

    def test_no_room_for_a_file(self):
        self.half("run")
        before = {p: p.read_bytes() for p in self.checkpoints("run")[-1].iterdir()}
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))
        p = subprocess.run([PROGRAM, *map(str, self.command("run"))], capture_output=True, check=False, timeout=100,
                           preexec_fn=limit, restore_signals=False)  # Python ignores SIGXFSZ: writing fails instead
        self.check("run", p)
        self.assertEqual({q: q.read_bytes() for q in before}, before)
        self.finish("run")

    def test_no_room_on_the_disk(self):
        disk = self.d / "disk"
        disk.mkdir()
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True,
                                               check=False).returncode != 0:
            self.skipTest("this user may not mount a small disk")
        try:
            self.half("disk/run")
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            (disk / "filler").write_bytes(bytes(max(0, free - 200000)))  # a checkpoint takes 400000
            before = {p: p.read_bytes() for p in self.checkpoints("disk/run")[-1].iterdir()}
            self.check("disk/run", run(*self.command("disk/run")))
            self.assertEqual({q: q.read_bytes() for q in before}, before)
            shutil.move(disk / "run", self.d / "moved")
        finally:
            subprocess.run(["umount", disk], check=False)
        self.finish("moved")


class Damaged(Training):
    """The newest checkpoint is used or named, never passed over."""

    def setUp(self):
        super().setUp()
        good(*self.command("run", *SHORT))
        self.newest = self.checkpoints("run")[-1]

    def refused(self, name, data):
        path = self.newest / name
        whole = path.read_bytes()
        try:
            if data is None:
                path.unlink()
            else:
                path.write_bytes(data(whole))
            p = run(*self.command("run"))
            text = p.stderr.decode(errors="replace")
            self.assertEqual(p.returncode, 1, text)
            self.assertIn(str(self.newest), text)
            self.assertIn(name, text)
        finally:
            path.write_bytes(whole)

    def test_a_damaged_checkpoint_is_refused(self):
        for name in ("model.safetensors", "optimizer.safetensors", "trainer.json"):
            with self.subTest(name):
                self.refused(name, None)
                self.refused(name, lambda b: b[:len(b) // 2])
                self.refused(name, lambda b: b"")
                self.refused(name, lambda b: b"\xff" * 64 + b[64:])
                self.refused(name, lambda b: b[:-5] + bytes([b[-5] ^ 1]) + b[-4:])
        self.assertEqual(run(*self.command("run")).returncode, 0)


class TooFast(Training):
    def test_a_loss_that_is_no_number_stops_the_run(self):
        good(*self.command("run", *SHORT))
        newest = self.checkpoints("run")[-1]
        before = {p: p.read_bytes() for p in newest.iterdir()}
        p = run(*self.command("run", "optimizer.rate=1e38", "schedule.decay_tokens=0", "schedule.warmup=0", "optimizer.clip=0",
                              "run.save_every=0"))
        text = p.stderr.decode(errors="replace")
        self.assertEqual(p.returncode, 1, text)
        self.assertRegex(text, r"fmamba: step 1[5-9]: .*nan.*; not finite is (the gradient of )?[\w.]+: ")
        self.assertIn("last good checkpoint", text)
        self.assertEqual(self.checkpoints("run")[-1], newest)
        self.assertEqual({q: q.read_bytes() for q in before}, before)


if __name__ == "__main__":
    unittest.main()
