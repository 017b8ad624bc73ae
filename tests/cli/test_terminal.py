"""At a terminal: the talk and its verbs, Ctrl-C, progress bars, bold text; and that none of it reaches a pipe."""
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
import unittest

from fmamba import GOLDEN, PROGRAM, TALES, Case, good, run

PATIENCE = 60  # seconds, for a loaded machine


class Terminal:
    """The program with its standard streams at a pseudo-terminal."""

    def __init__(self, *args, term="dumb", **env):
        self.master, slave = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FM_") and k != "NO_COLOR"}
        environment.update(FM_MODEL=TALES, TERM=term, **env)
        self.process = subprocess.Popen([PROGRAM, *map(str, args)], stdin=slave, stdout=slave, stderr=slave, env=environment,
                                        start_new_session=True, close_fds=True)
        os.close(slave)
        self.seen = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def read(self):
        """What came since the last time; "" at the end."""
        if not select.select([self.master], [], [], PATIENCE)[0]:
            raise AssertionError(f"nothing came; so far: {self.seen!r}")
        try:
            return os.read(self.master, 65536).decode(errors="replace").replace("\r\n", "\n")
        except OSError:  # how Linux says that the other side is closed
            return ""

    def until(self, pattern):
        """Waits for a text and gives what came before its end."""
        while not (found := re.search(pattern, self.seen)):
            part = self.read()
            if not part:
                raise AssertionError(f"ended before {pattern!r}: {self.seen!r}")
            self.seen += part
        text, self.seen = self.seen[:found.end()], self.seen[found.end():]
        return text

    def say(self, line, pattern=r"\n>>> "):
        os.write(self.master, line.encode() + b"\n")
        text = self.until(pattern)
        while text.startswith(line + "\n"):  # shown by the terminal, by libedit or by both
            text = text[len(line) + 1:]
        return text

    def leave(self):
        """Ctrl-D on an empty line, again where libedit had not yet switched the terminal to single keys; gives the exit code.

        A Ctrl-D typed before the switch arrives as a zero byte in the line, which Ctrl-U clears.  Only the process says that
        it is over: the terminal echoes, and may be silent while it changes its mode."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            os.write(self.master, b"\x15\x04")
            time.sleep(0.05)
            while self.process.poll() is None and select.select([self.master], [], [], 0)[0] and self.read():
                pass
        return self.process.wait(1)

    def end(self):
        """All the rest, and the exit code."""
        while part := self.read():
            self.seen += part
        return self.seen, self.process.wait(PATIENCE)


class Talk(Case):
    def test_verbs(self):
        with tempfile.TemporaryDirectory() as d, Terminal("run", "--temp", 0, "-n", 8) as t:
            self.assertIn("no chat template", t.until(">>> "))
            self.assertIn("/set parameter", t.say("/?"))
            self.assertIn("Ctrl-C", t.say("/? shortcuts"))
            self.assertIn("falcon_mamba", t.say("/show info"))
            t.say("/set parameter top_k 7")
            self.assertIn("top_k 7\n", t.say("/show parameters"))
            self.assertIn("expected 0 .. 1", t.say("/set parameter top_p 3"))
            self.assertIn("is not a number", t.say("/set parameter top_p three"))
            self.assertIn("is unknown", t.say("/sing"))
            self.assertIn("PARAMETER top_k 7\n", t.say("/show modelfile"))
            self.assertIn("licence", t.say("/show license"))
            self.assertIn("terminal", t.say("/set wordwrap"))
            self.assertIn("/set history", t.say("/set pace"))
            t.say("/set nohistory")
            first = t.say("Once upon a time")
            self.assertRegex(t.say(f"/save {d}/s"), r"s: [1-9]\d* tokens")
            second = t.say(" and so")
            t.say("/clear")
            self.assertEqual(t.say("Once upon a time"), first)
            t.say("/clear")
            self.assertRegex(t.say(f"/load {d}/s"), r"s: [1-9]\d* tokens")
            self.assertEqual(t.say(" and so"), second)
            self.assertIn("No such file", t.say(f"/load {d}/none"))
            os.write(t.master, b"/bye\n")
            self.assertEqual(t.end()[1], 0)

    def test_a_single_turn(self):
        """-st answers what is typed until Ctrl-D, and leaves; the seed may have all of 64 bits."""
        with Terminal("run", "-st", "--temp", 0, "-n", 8, "--seed", 2**64 - 1) as t:
            t.until(f"seed {2**64 - 1},")
            os.write(t.master, b"Once upon a time\n\x04")
            text, code = t.end()
            self.assertEqual(code, 0, text)
            self.assertNotIn(">>>", text)
            self.assertIn(good("run", "--temp", 0, "-n", 8, "Once upon a time").strip(), text)

    def test_several_lines_and_the_end_of_input(self):
        with Terminal("run", "--temp", 0, "-n", 3) as t:
            t.until(">>> ")
            t.say('"""first', r"\n\.\.\. ")
            t.say("second", r"\n\.\.\. ")
            t.say('third"""')
            self.assertIn("has seen", t.say("/show info"))
            self.assertEqual(t.leave(), 0)

    def test_verbose(self):
        with Terminal("run", "-n", 3, "--temp", 0) as t:
            t.until(">>> ")
            t.say("/set verbose")
            self.assertRegex(t.say("The king"), r"time to first token \d+ ms")
            t.say("/set quiet")
            self.assertNotIn("tok/s", t.say("The king"))

    def test_a_chat_goes_on_from_a_saved_state(self):
        """A loaded state is followed by the next message as a turn: the same answer as when the talk was never left."""
        with tempfile.TemporaryDirectory() as d:
            with Terminal("run", "--temp", 0, "-n", 6, "--chat-template", "chatml") as t:
                t.until(">>> ")
                t.say("Who is the king?")
                t.say(f"/save {d}/s")
                seen = re.search(r"seen (\d+) tokens", t.say("/show info"))[1]
                answer = t.say("And the queen?")
            with Terminal("run", "--temp", 0, "-n", 6, "--chat-template", "chatml") as t:
                t.until(">>> ")
                t.say("Something else that is forgotten.")
                self.assertIn(f"{seen} tokens", t.say(f"/load {d}/s"))
                self.assertEqual(t.say("And the queen?"), answer)
                self.assertIn("forgotten", t.say("/clear"))
                t.say("Who is the king?")
                self.assertIn(f"seen {seen} tokens", t.say("/show info"))


    def test_what_is_refused_leaves_the_talk_as_it_is(self):
        """A state of another model, and a message that is too long: neither the state nor the history moves."""
        with tempfile.TemporaryDirectory() as d:
            good("state", "create", "-m", GOLDEN / "falcon-small", "--ids", "1,2,3", "-o", f"{d}/other")
            answers = []
            for refused in (), (f"/load {d}/other", "word " * 60):
                with Terminal("run", "--temp", 0, "-n", 4, "-c", 60, "--chat-template", "chatml") as t:
                    t.until(">>> ")
                    t.say("Who?")
                    before = t.say("/show info")
                    for line in refused:
                        self.assertRegex(t.say(line), "only continues|allows 60")
                        self.assertEqual(t.say("/show info"), before)
                    answers.append((t.say("And?"), t.say("/show info")))
            self.assertEqual(*answers)

    def test_letters_beyond_ascii(self):
        with Terminal("run", "--temp", 0, "-n", 2, LC_ALL="C") as t:
            t.until(">>> ")
            t.say("garçon 日本")
            seen = re.search(r"seen (\d+)", t.say("/show info"))[1]
        ids = json.loads(good("tokenize", "--json", "-p", "garçon 日本"))
        self.assertEqual(int(seen), len(ids) + 2)

    def test_names_with_blanks_and_messages_that_look_like_verbs(self):
        with tempfile.TemporaryDirectory() as d, Terminal("run", "--temp", 0, "-n", 2) as t:
            t.until(">>> ")
            t.say('"""/* a comment */"""')
            self.assertRegex(t.say("/show info"), r"seen [1-9]")
            self.assertIn("my talk: ", t.say(f"/save {d}/my talk"))
            self.assertEqual([p.name for p in pathlib.Path(d).iterdir()], ["my talk"])
            self.assertIn("not below -1", t.say("/set parameter top_k -5"))
            self.assertEqual(t.say("/set parameter top_k -1").strip("\n> "), "")
            self.assertIn("not below 0", t.say("/set parameter seed -1"))


class Interrupts(Case):
    def test_a_message_that_is_being_written_is_dropped(self):
        with Terminal("run", "-n", 2, "--temp", 0) as t:
            t.until(">>> ")
            t.say('"""secret', r"\n\.\.\. ")
            time.sleep(0.2)
            t.process.send_signal(signal.SIGINT)
            t.until(">>> ")
            self.assertIn("seen 0 tokens", t.say("/show info"))

    def test_sigterm_ends_a_talk(self):
        with Terminal("run", "-n", -1, "--ignore-eos", "--temp", 0) as t:
            t.until(">>> ")
            t.say("Once upon a time", "\n.{20}")
            t.process.send_signal(signal.SIGTERM)
            t.end()
        with Terminal("run") as t:
            t.until(">>> ")
            time.sleep(0.2)
            t.process.send_signal(signal.SIGTERM)
            t.end()

    def test_ctrl_c_ends_a_program_that_waits_for_its_input(self):
        for command in ("generate", "run"):
            p = subprocess.Popen([PROGRAM, command, "-n", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, env={**os.environ, "FM_MODEL": TALES})
            time.sleep(1)
            p.send_signal(signal.SIGINT)
            self.assertEqual(p.wait(PATIENCE), -signal.SIGINT)
            p.communicate()

    def test_an_answer_is_stopped_and_the_talk_goes_on(self):
        with Terminal("run", "-n", -1, "--ignore-eos", "--temp", 0) as t:
            t.until(">>> ")
            t.say("Once upon a time", "\n.{20}")
            t.process.send_signal(signal.SIGINT)
            t.until(r"\(stopped\)\n>>> ")
            self.assertRegex(t.say("/show info"), r"seen [1-9]\d* tokens")
            os.write(t.master, b"/bye\n")
            self.assertEqual(t.end()[1], 0)

    def test_a_prompt_is_stopped_and_taken_back(self):
        """Ctrl-C during prefill: the state is what it was before the message."""
        with Terminal("run", "-n", 2, "--temp", 0, "--cpu", "ref", "-t", 1) as t:
            t.until(">>> ")
            t.say("One.")
            before = t.say("/show info")
            t.say('"""' + "many words " * 60, r"\n\.\.\. ")
            for _ in range(150):
                t.say("many words " * 60, r"\n\.\.\. ")
            os.write(t.master, b'end"""\n')
            time.sleep(0.5)
            t.process.send_signal(signal.SIGINT)
            t.until(r"\(stopped\)\n>>> ")
            self.assertEqual(t.say("/show info"), before)

    def interrupted(self, *args, by=signal.SIGINT):
        p = subprocess.Popen([PROGRAM, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             stdin=subprocess.DEVNULL, env={**os.environ, "FM_MODEL": TALES})
        time.sleep(1.5)
        p.send_signal(by)
        out, err = p.communicate(timeout=PATIENCE)
        return p.returncode, out.decode(), err.decode()

    def test_generate_says_that_it_was_cancelled(self):
        code, out, err = self.interrupted("generate", "-p", "The king", "-n", -1, "--ignore-eos", "--json")
        self.assertEqual((code, err), (1, ""))
        self.assertIn('"stop":"cancelled"', out.replace('": "', '":"'))

    def test_an_interrupted_product_leaves_no_file(self):
        with tempfile.TemporaryDirectory() as d:
            for by in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
                code, _, err = self.interrupted("synth", "--shape", "falcon-mamba-7b", "-o", f"{d}/x.gguf", by=by)
                self.assertEqual(code, 1)
                self.assertIn("stopped", err)
                self.assertEqual(list(pathlib.Path(d).iterdir()), [])


class Looks(Case):
    def test_progress_bars_are_for_terminals(self):
        with tempfile.TemporaryDirectory() as d:
            with Terminal("quantize", TALES, f"{d}/q.gguf", "q4_0") as t:
                text, code = t.end()
            self.assertEqual(code, 0)
            self.assertRegex(text, r"\[#+\.*\] +\d+\.\d %")
            p = run("quantize", TALES, f"{d}/p.gguf", "q4_0")
            self.assertEqual(p.returncode, 0)
            self.assertNotIn(b"%", p.stderr)
            self.assertEqual(pathlib.Path(f"{d}/p.gguf").read_bytes(), pathlib.Path(f"{d}/q.gguf").read_bytes())

    def test_bold_text_is_for_terminals_that_have_it(self):
        args = ("generate", "-p", "The king", "--echo", "-n", 2, "--temp", 0)
        for escapes, more, env in ((True, (), {"term": "xterm"}), (False, (), {"term": "dumb"}),
                                   (False, (), {"term": "xterm", "NO_COLOR": "1"}), (False, ("--no-color",), {"term": "xterm"})):
            with Terminal(*args, *more, **env) as t:
                text, code = t.end()
            self.assertEqual(code, 0)
            self.assertEqual("\x1b[1mThe king\x1b[0m" in text, escapes, (more, env))
            self.assertEqual("\x1b" in text, escapes, (more, env))
        self.assertNotIn("\x1b", good(*args))


if __name__ == "__main__":
    unittest.main()
