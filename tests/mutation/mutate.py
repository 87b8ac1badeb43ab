#!/usr/bin/env python3
"""Mutants of the kernels and device primitives: which of them do the tests notice?

    mutate.py --judge build/tests/mutation/mutation_judge [--sample N] [--seed S] [--jobs J] [--list] [--file TEXT]
              [--record FILE] [ID ...]

Each mutant removes or weakens one wait, barrier, fence, arrive, copy, store, parity, count, mask or bound. All of them
are put into one copy of templates/, each behind a switch that a kernel looks up at run time (mutant schemata: Untch,
Offutt and Harrold 1993), so kernels are compiled once for all mutants. Device headers that have a twin in
templates/emulator are mutated there: that is what runs. survivors.txt holds the mutants that are known to survive, each
with the reason; score.txt the least share of mutants that must be noticed. A sample is drawn by the mutants' texts, so
that a change elsewhere in the kernels leaves it as it was. A run of all mutants takes hours: with --record it goes on
where an earlier one was cut off, in the order of a sample, so that what has been judged is one. Exit status 1: below the score, a kernel template that no
case of the judge runs, or, where all mutants are run, a survivor that is not explained.
"""
import argparse
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TEMPLATES = HERE.parent.parent / "templates"
# What runs in the emulator. The twins' arithmetic (matrix products, conversions) is tested against the PTX ISA's
# definitions in tests/emulator, so of the twins only what synchronises and moves is mutated.
FOLDERS = ["kernels", "patterns"]
FILES = ["device/parking.cuh", "emulator/barrier.cuh", "emulator/cluster.cuh", "emulator/copy.cuh",
         "emulator/tensor_copy.cuh", "emulator/thread.cuh", "emulator/warpgroup_matrix.cuh"]

SWITCH = """
// Put in by tests/mutation/mutate.py: whether the mutant of this number is switched on. Without one, the judge hears
// which mutants' code was come by (the same Switchboard is in judge.cpp).
extern "C" char* getenv(const char*) noexcept;
extern "C" unsigned long strtoul(const char*, char**, int) noexcept;
namespace tilewright {
struct Switchboard {
  int active;
  unsigned char reached[1 << 14];
};
inline Switchboard alone{-1, {}};
inline Switchboard* find_switchboard() {
  const char* const address = getenv("TILEWRIGHT_MUTANTS");
  return address == nullptr ? &alone : reinterpret_cast<Switchboard*>(strtoul(address, nullptr, 16));
}
inline Switchboard* const switchboard = find_switchboard();
constexpr int mutated(int number) {
  if (__builtin_is_constant_evaluated()) {
    return 0;
  }
  if (switchboard->active == 0) {
    switchboard->reached[number] = 1;
  }
  return switchboard->active == number ? 1 : 0;
}
// Of what a constant may begin with: a compiler that tries it as one would find none of the mutants on.
inline bool mutated_choice(int number) { return mutated(number) != 0; }
} // namespace tilewright
"""

# Statements that synchronise, move data or walk on.
DELETED = re.compile(
    r"(?:^\s*|\{ )(?P<call>(?:[\w.]+[.]|thread[.]services->|last[.]services->)?"
    r"(?:wait\w*|arrive\w*|synchronize\w*|fence\w*|publish\w*|commit\w*|release\w*|claim\w*|store\w*|copy\w*|load_\w+|"
    r"mask\w*|clear\w*|park|initialize\w*|advance|write_note|raise_maximum|rescale\w*|follow_maxima|finish\w*|issue\w*|"
    r"check_map|meet_warp|begin_video|find_item|find_rows|next_tile|repeat|exponentiate)"
    r"(?:<[^;()]*>)?\()")
TOGGLED = re.compile(r"^\s*(?P<call>[\w.]+ \^= [^;]+;)|^\s*(?P<step>\+\+\w+;)")
PENDING = re.compile(r"^\s*(?P<name>wait_for_(?:copies|products))<(?P<left>[^;]+)>\(\);")
RELATION = re.compile(r" (?P<sign><|>|<=|>=|==|!=) (?P<right>\w+)")
CONDITION = re.compile(r"^\s*(?:\} else )?if \((?P<condition>.*)\) \{$")
CHOICE = re.compile(r"(?<![=!<>])= (?P<flag>\w+) \? ")
STEP = re.compile(r"\+= (?P<step>[^;]+)\) \{")
SMALLER = re.compile(r"(?P<left>[\w.]+(?: - \w+)?) [<>] (?P<right>\w+) \? (?P=left) : (?P=right)")  # or the larger
# Not mutated: which thread does what one thread has to do; limits of float32 numbers, which 1 more leaves as they are.
CHOSEN = re.compile(r"(?:thread_index\(\)(?: % \w+)?|lane_index\(\)|\b(?:lane|lane % 4|thread|chunk|first_row)) [!=]= 0")
FLOATS = ("exponential_limit", "lazy_growth", "no_maximum", "tolerated_growth")
SKIPPED = re.compile(r"constexpr|static_assert|^\s*#|^\s*//|asm |template <|^using |operator")


def closing(text, start):
    """Where the parenthesis that opens at start is closed."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    return -1


def last_argument(text, start, end):
    """Where the last of several arguments begins; -1 where there is only one."""
    depth, found = 0, -1
    for i in range(start + 1, end):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(text[i], 0)
        if text[i] == "," and depth == 0:
            found = i + 1
    return found


def begins_statement(lines_before):
    """Whether a statement begins behind these lines."""
    for line in reversed(lines_before):
        code = line.split("//")[0].strip()
        if code:
            return code.startswith("#") or code.endswith((";", "{", "}", ":", ">"))
    return True


class Mutants:
    def __init__(self):
        self.all = []  # (file, line number, kind, the line's text)

    def new(self, name, number, kind, line):
        self.all.append((name, number, kind, line.strip()))
        return len(self.all)

    def of_file(self, name, text):
        """The file's text with all of its mutants in it."""
        lines = text.split("\n")
        twin = name.startswith("emulator/")
        starts, offset = [], 0
        for line in lines:
            starts.append(offset)
            offset += len(line) + 1
        edits = []  # (position, order, length, text)
        constant = False  # within a constexpr or static_assert statement
        for index, line in enumerate(lines):
            at, number = starts[index], index + 1
            code = line.split(" //")[0].rstrip()
            if constant:
                constant = not code.endswith(";")
                continue
            if SKIPPED.search(code):
                constant = re.search("constexpr|static_assert", code) and not code.endswith((";", "{", "}", ">"))
                if CONDITION.match(line) is None:
                    continue
            unrolled = index > 0 and lines[index - 1].strip() == "#pragma unroll"

            def insert(position, added, order=0):
                edits.append((at + position, order, 0, added))

            pending = PENDING.match(line)
            if pending:
                id = self.new(name, number, "waits for one group less", line)
                insert(pending.start("name"), "if (tilewright::mutated(%d)) { %s<(%s) + 1>(); } else " %
                       (id, pending["name"], pending["left"]), order=1)
            deleted = DELETED.search(line) if begins_statement(lines[:index]) else None
            if deleted and "return" not in line[:deleted.start("call")]:
                position = deleted.start("call")
                opening = at + deleted.end("call") - 1
                end = closing(text, opening)
                if end >= 0 and text[end + 1:end + 2] == ";":
                    id = self.new(name, number, "removed", line)
                    insert(position, "if (!tilewright::mutated(%d)) " % id)
                    second = last_argument(text, opening, end)
                    called = deleted["call"]
                    if second >= 0 and "services" not in called:
                        kind, changed = None, None
                        if re.match(r"(shared_?[.])?wait\(", called):
                            kind, changed = "waits for the other parity", " (%s) ^ static_cast<uint32_t>(tilewright::mutated(%d))"
                        elif called == "initialize_barrier(":
                            kind, changed = "one arrival more", " (%s) + tilewright::mutated(%d)"
                        elif called == "arrive_expecting(":
                            kind, changed = "16 bytes less are expected", " (%s) - 16 * tilewright::mutated(%d)"
                        elif called == "arrive(":
                            kind, changed = "one arrival less", " (%s) - tilewright::mutated(%d)"
                        if kind:
                            id = self.new(name, number, kind, line)
                            argument = text[second:end].strip()
                            edits.append((second, 0, end - second, changed % (argument, id)))
                            continue
            toggled = TOGGLED.match(line)
            if toggled:
                group = "call" if toggled["call"] else "step"
                id = self.new(name, number, "removed", line)
                insert(toggled.start(group), "if (!tilewright::mutated(%d)) " % id)
                continue
            if twin:
                continue
            condition = CONDITION.match(line)
            if condition and not line.strip().startswith("if constexpr") and "constexpr" not in line:
                true = self.new(name, number, "condition always true", line)
                false = self.new(name, number, "condition never true", line)
                insert(condition.start("condition"), "tilewright::mutated(%d) || (!tilewright::mutated(%d) && (" % (true, false))
                insert(condition.end("condition"), "))", order=9)
            if "for (" in line and unrolled or "enum" in line:
                continue  # a loop over registers
            smaller = SMALLER.search(line)
            if smaller:
                id = self.new(name, number, "takes the other", line)
                insert(smaller.start(), "(tilewright::mutated(%d) != 0) != (" % id)
                insert(smaller.end("right"), ")")
            chosen = [match.end() for match in CHOSEN.finditer(line)]
            for relation in RELATION.finditer(line):
                right = relation["right"]
                if right in ("nullptr", "true", "false", "State", "nobody") + FLOATS or "template" in line:
                    continue
                if "State::" in line or relation.end() in chosen or smaller:
                    continue
                loop = "for (" in line
                if right == "negative_infinity":
                    id = self.new(name, number, "compares with 0", line)
                    insert(relation.start("right"), "(tilewright::mutated(%d) ? 0.f : " % id)
                    insert(relation.end("right") + len("()"), ")")
                    continue
                if loop:
                    step = STEP.search(line)
                    if relation["sign"] == "!=":
                        continue
                    id = self.new(name, number, "loop ends one early", line)
                    insert(relation.start("right"), "-(%s) * tilewright::mutated(%d) + " % (step["step"] if step else "1", id))
                    continue
                more = relation["sign"] in ("<", ">=", "==", "!=") and right != "no_limit"
                id = self.new(name, number, "bound off by one: " + relation["sign"], line)
                insert(relation.start("right"), "%stilewright::mutated(%d) + " % ("" if more else "-", id))
            choice = CHOICE.search(line)
            if choice:
                id = self.new(name, number, "mask does not hold", line)
                insert(choice.start("flag"), "tilewright::mutated_choice(%d) || " % id)
        for position, order, length, added in sorted(edits, key=lambda e: (e[0], e[1]), reverse=True):
            text = text[:position] + added + text[position + length:]
        return text


def make_schemata(target):
    shutil.copytree(TEMPLATES, target)
    mutants = Mutants()
    names = [str(p.relative_to(TEMPLATES)) for folder in FOLDERS for p in sorted((TEMPLATES / folder).rglob("*.cu*"))]
    for name in names + FILES:
        path = target / name
        path.write_text(mutants.of_file(name, path.read_text()))
    integers = target / "device" / "integers.cuh"
    integers.write_text(integers.read_text() + SWITCH)
    return mutants.all


def key_of(mutant):
    """Names a mutant without its line's number, which changes."""
    name, _, kind, text = mutant
    return "%s | %s | %s" % (name, kind, text)


def read_survivors():
    reasons = {}
    for line in (HERE / "survivors.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            key, _, reason = line.rpartition(" || ")
            reasons[key] = reason
    return reasons


def sample(mutants, ids, count, seed):
    """`count` of the ids, in an order that depends on nothing but the seed and each mutant's own text."""
    seen, order = {}, []
    for id in ids:
        key = key_of(mutants[id - 1])
        seen[key] = seen.get(key, 0) + 1
        order.append((hashlib.sha256(("%d %s %d" % (seed, key, seen[key])).encode()).hexdigest(), id))
    return [id for _, id in sorted(order)[:count]]


class Record:
    """Verdicts as they come, kept in a file for these very templates: without one, in memory alone."""

    def __init__(self, path, templates):
        self.verdicts, self.ran = {}, set()
        self.path = pathlib.Path(path) if path else None
        if self.path is None:
            return
        version = hashlib.sha256()
        for source in sorted(templates.rglob("*.cu*")):
            version.update(source.read_bytes())
        heading = "templates " + version.hexdigest()
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        if lines and lines[0] != heading:
            sys.exit("%s records other templates or mutants: name another file, or delete it" % self.path)
        if not lines:
            self.path.write_text(heading + "\n")
        for line in lines[1:]:
            self.read(line)

    def read(self, line):
        first, *rest = line.split(" ", 2)
        if first == "kernel":
            self.ran.add(rest[0])
        else:
            self.verdicts[int(first)] = (rest[0], rest[1] if len(rest) > 1 else "")

    def add(self, line):
        self.read(line)
        if self.path:
            with self.path.open("a") as file:
                file.write(line + "\n")


def judge(options, ids, templates, kernels):
    """What the judge says: {id: (verdict, reason)}, and the names of the kernel templates that it ran."""
    record = Record(options.record, templates)
    ids = [id for id in ids if id not in record.verdicts]
    environment = dict(os.environ, TILEWRIGHT_TEMPLATES=str(templates))
    command = [options.judge, str(kernels), str(options.jobs)] + ["--verbose"] * options.verbose
    command += ["--seeds", str(options.seeds)]
    for case in options.case:
        command += ["--case", case]
    with subprocess.Popen(command + [str(id) for id in ids], env=environment, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            record.add(line.rstrip("\n"))
    if run.returncode != 0:
        sys.exit("the judge ended with status %d" % run.returncode)
    return record.verdicts, record.ran


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", action="append", default=[], help="only cases whose name has this text")
    parser.add_argument("--seeds", type=int, default=3, help="of the emulator, for each case")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="say what each mutant was noticed by")
    parser.add_argument("--file", default="", help="only mutants of files whose name has this text")
    parser.add_argument("--record", help="a file for the verdicts, which a later run goes on from")
    parser.add_argument("--keep", help="folder for templates and compiled kernels, kept")
    parser.add_argument("ids", nargs="*", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tilewright-mutants-") as temporary:
        work = pathlib.Path(options.keep or temporary)
        shutil.rmtree(work / "templates", ignore_errors=True)
        work.mkdir(exist_ok=True)
        mutants = make_schemata(work / "templates")
        ids = options.ids or [id for id in range(1, len(mutants) + 1) if options.file in mutants[id - 1][0]]
        reasons = read_survivors()
        if options.sample: # of those that can be noticed
            noticeable = [id for id in ids if key_of(mutants[id - 1]) not in reasons]
            ids = sample(mutants, noticeable, options.sample, options.seed)
        elif options.record: # known survivors, which run all of their cases, last
            known = [id for id in ids if key_of(mutants[id - 1]) in reasons]
            rest = [id for id in ids if key_of(mutants[id - 1]) not in reasons]
            ids = sample(mutants, rest, len(rest), options.seed) + sample(mutants, known, len(known), options.seed)
        if options.list:
            for id in sorted(ids):
                print(id, "%s:%d | %s | %s" % mutants[id - 1])
            return 0
        kernels = work / "kernels"
        kernels.mkdir(mode=0o700, exist_ok=True)
        verdicts, ran = judge(options, ids, work / "templates", kernels)
    missing = [] if options.case else sorted({path.stem for path in (TEMPLATES / "kernels").glob("*.cu")} - ran)
    if missing:
        print("no case of tests/mutation/cases.cpp runs %s" % ", ".join(missing))
    least = float((HERE / "score.txt").read_text().split()[0])
    killed, equivalent, unexplained, unreached = 0, 0, 0, 0
    for id in sorted(ids):
        verdict, said = verdicts[id]
        known = reasons.get(key_of(mutants[id - 1]))
        place = "%s:%d | %s | %s" % mutants[id - 1]
        killed += verdict == "killed"
        if verdict == "killed":
            if options.verbose or known:
                print("killed %d %s: %s%s" % (id, place, said, " (not what survivors.txt says)" if known else ""))
            continue
        equivalent += known is not None
        unexplained += known is None
        unreached += verdict == "unreached"
        print("%s %d %s%s" % (verdict if known else verdict.upper(), id, place, " (%s)" % known if known else ""))
    # As usual, mutants that nothing could notice do not count.
    judged = killed + unexplained
    score = 100.0 * killed / judged if judged else 100.0
    print("%d mutants: %d noticed (%.1f %% of all), %d survived with a reason, %d without (%d of both in code that no "
          "case runs)" % (len(ids), killed, 100.0 * killed / len(ids), equivalent, unexplained, unreached))
    # A sample of n has a standard error of sqrt(least (100 - least) / n); two of them are allowed to it.
    slack = 2 * (least * (100 - least) / max(judged, 1)) ** 0.5 if options.sample else 0.0
    print("score: %.1f %% of those that can be noticed; at least %.1f %%%s" %
          (score, least, ", less %.1f for a sample" % slack if options.sample else ""))
    explained = options.sample or options.ids or unexplained == 0
    return 0 if score >= least - slack and explained and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
