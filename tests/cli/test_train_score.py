"""Training from the command line: what it says about a model is what other commands say, and a schedule does what it is for."""
import unittest

from fmamba import good, good_json
from training import TEXT, Training


class Train(Training):
    def test_held_out_loss_is_that_of_perplexity(self):
        good(*self.command("run", "run.eval_every=640"))
        losses = {line["step"]: line["val_loss"] for line in self.log("run") if "val_loss" in line}
        self.assertEqual(len(losses), 4)
        for p in self.checkpoints("run"):
            step = int(p.name[5:])
            if step in losses:
                for how in (("-t", 1), ("-t", 3), ("-t", 2, "--chunk", 5)):
                    score = good_json("perplexity", "-m", p, "-f", TEXT, "--window", 32, "--reset", "--json", *how)
                    self.assertEqual(score["nll"], losses[step], f"{p} {how}")
                losses.pop(step)
        self.assertLess(len(losses), 4)

    def test_the_decay_drops_the_loss(self):
        """With the same steps up to there, the last quarter ends lower than before it and than without decay."""
        rate = ("optimizer.rate=2e-2", "optimizer.dropout=0", "schedule.tokens=12800", "schedule.warmup=1280", "run.save_every=0")
        good(*self.command("flat", *rate, "schedule.decay_tokens=0"))
        good(*self.command("wsd", *rate, "schedule.decay_tokens=3200", "schedule.decay=linear"))
        flat, wsd = ([line["loss"] for line in self.log(out) if "loss" in line] for out in ("flat", "wsd"))
        self.assertEqual(flat[:150], wsd[:150])
        mean = lambda v: sum(v) / len(v)
        before, constant, decayed = mean(wsd[130:150]), mean(flat[180:]), mean(wsd[180:])
        self.assertLess(decayed, constant - 0.1)
        self.assertLess(decayed, before - 0.1)


if __name__ == "__main__":
    unittest.main()
