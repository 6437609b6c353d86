"""The command line. Files are opened, results printed and exit codes chosen here and nowhere else."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .attempts import Attempts, Way, Work, attempted, checked
from .errors import GradproofError, InputError, Place, did_you_mean
from .output import form_of, page_names, show, tell, write, write_anything
from .progress import tracked
from .telling import EXPLANATIONS, FORMATS, GRADIENTS

if TYPE_CHECKING:
    from .language.files import Problem
    from .quiz import Question, Quiz
    from .report import Report

ALL_PASS, SOMETHING_WRONG, BAD_INPUT, NOT_DECIDED, INTERRUPTED = 0, 1, 2, 3, 130

PAGE_ENDINGS = {"markdown": ".md", "html": ".html"}
DESCENT_FORMATS = ("text", "markdown", "html", "json", "csv")

DTYPE = "float64, float32, bfloat16 or float16 (the file's own, or float64)"

EXAMPLES = """\
examples:
  gradproof check --example ols
  gradproof check expressions/ols.toml
  gradproof check expressions/ --dtype float32 --format json
  gradproof check model.py:attention
  gradproof check -e "loss = (w*x - y)**2" --given x=1 --given y=2 --parameter w=1
  gradproof explain expressions/ols.toml
  gradproof gradient expressions/ols.toml
  gradproof report expressions/ --output reports/
  gradproof descend expressions/ols.toml --learning-rate 0.01 --steps 100

exit codes:
  0 all pass · 1 something is wrong or failed · 2 bad usage or bad input
  3 nothing wrong, but something is undecided or unsupported
  130 interrupted (Ctrl-C); what was done is reported
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is returned."""
    try:
        Path.cwd()  # libraries end a process without one in ways of their own
        arguments = _parser().parse_args(argv)
        if getattr(arguments, "example", []):
            from .examples import path_of

            arguments.targets += [str(path_of(name)) for name in arguments.example]
        return arguments.run(arguments)
    except GradproofError as error:
        tell(error)
        return error.exit_code
    except KeyboardInterrupt:
        tell("interrupted")
        return INTERRUPTED
    except OSError as error:  # a folder that may not be searched, a working directory that is gone
        what = (
            "the working directory"
            if isinstance(error, FileNotFoundError) and error.filename is None
            else error.filename
        )
        tell(f"{what}: {error.strerror}" if what else error)
        return BAD_INPUT


class _Parser(argparse.ArgumentParser):
    """Says what may have been meant."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '([^']*)'|unrecognized arguments: (\S+)", message)
        if wrong is not None:
            word = (wrong[1] or wrong[2]).partition("=")[0]
            known = [*self._option_string_actions]
            for action in self._actions:
                known += map(str, action.choices or ())
                if isinstance(action, argparse._SubParsersAction):
                    known += [
                        option for sub in action.choices.values() for option in sub._option_string_actions
                    ]
            message += did_you_mean(word, known)
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gradproof",
        description="An exact oracle for gradients: is this gradient right, and if not, where is it wrong?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gradproof {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], help_: str, targets: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=help_,
            description=help_,
            epilog=EXAMPLES,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        sub.add_argument("targets", nargs="*", metavar="TARGET", help=targets)
        return sub

    one = "an expression file"
    files = f"{one}, or a folder of them"
    any_ = f"{files}, or file.py:name, package.module:name: a function that returns (func, inputs)"
    _check_options(command("check", _check, "check an engine's gradients against the calculus", any_))
    _explain_options(command("explain", _explain, "the derivation alone, without an engine", files))
    what = "the exact gradient by each parameter, and nothing else"
    _gradient_options(command("gradient", _gradient, what, one))
    _report_options(command("report", _report, "write a page for each file, and an index", any_))
    _add_examples(commands)
    _add_help(commands)
    _descent_options(command("descend", _descend, "train with torch, and check every step of it", one))
    return parser


def _check_options(parser: argparse.ArgumentParser) -> None:
    _expression_options(parser)
    _engine_options(parser)
    _output_options(parser, FORMATS, "of the report ", "write the report to a file instead")
    parser.add_argument("--full", action="store_true", help="in JSON or CSV, all entries of every gradient")
    _derivative_options(parser)
    _running_options(parser)


def _derivative_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode", choices=("reverse", "forward", "both"), help="of a function: backward, tangents, or both"
    )
    parser.add_argument(
        "--order", type=int, choices=(1, 2, 3), help="of a function: 2 judges the backward's own backward too"
    )
    parser.add_argument(
        "--contract",
        action="store_true",
        help="of a function: try what a backward promises beside its formula",
    )
    for name, what in (("surrogate", "FORMULA"), ("implicit", "EQUATION")):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar=f"FUNCTION:{what}",
            help=f"a custom Function's gradient is meant to be that of the {what.lower()}",
        )


def _explain_options(parser: argparse.ArgumentParser) -> None:
    _expression_options(parser)
    _output_options(parser, EXPLANATIONS, "of the derivation ", "write it to a file instead")
    parser.add_argument("--quiz", action="store_true", help="hide the gradients and ask for them")


def _gradient_options(parser: argparse.ArgumentParser) -> None:
    _expression_options(parser)
    _output_options(parser, GRADIENTS, "", "write it to a file instead")


def _report_options(parser: argparse.ArgumentParser) -> None:
    _engine_options(parser)
    parser.add_argument("--format", choices=PAGE_ENDINGS, default="markdown", help="of the pages (markdown)")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the pages go")
    _running_options(parser)


def _add_examples(commands: Any) -> None:
    what = "the expression files that came along"
    names = f"The names of {what}, for --example; or copies of them."
    parser = commands.add_parser("examples", help=what, description=names, allow_abbrev=False)
    parser.set_defaults(run=_examples)
    parser.add_argument("--copy", type=Path, metavar="FOLDER", help="copy them, with their data, to a folder")


def _add_help(commands: Any) -> None:
    what = "what a verdict means"
    parser = commands.add_parser("help", help=what, description="What a verdict means.", allow_abbrev=False)
    parser.set_defaults(run=_help)
    parser.add_argument(
        "verdict", nargs="?", metavar="VERDICT", help="one of them; without it, all in a line each"
    )


def _descent_options(parser: argparse.ArgumentParser) -> None:
    _expression_options(parser)
    parser.add_argument("--steps", type=_count, metavar="N", help="how many (the file's own, or 100)")
    parser.add_argument(
        "--learning-rate", type=float, metavar="R", help="(the file's own, or torch's default)"
    )
    parser.add_argument(
        "--optimizer", default="sgd", help="sgd (the default), adam, adamw, rmsprop or adagrad"
    )
    settings = "of the optimizer, by torch's names: momentum=0.9, nesterov=true, betas=[0.9, 0.99]"
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help=settings)
    parser.add_argument("--dtype", help=DTYPE)
    parser.add_argument(
        "--until", type=float, metavar="BOUND", help="stop when the exact gradient is proved below this"
    )
    parser.add_argument(
        "--accumulate", action="store_true", help="never zero the gradient, to see what happens"
    )
    parts = "add up the gradients of N parts of the data"
    parser.add_argument("--micro-batches", type=_count, default=1, metavar="N", help=parts)
    parser.add_argument(
        "--batch", action="append", metavar="NAME", help="a given tensor whose first axis is the batch (all)"
    )
    whole = "how the parts make the whole: sum, or mean (weighted with their shares)"
    parser.add_argument("--reduction", default="sum", help=whole)
    output = "write the report to a file; of Markdown, the plots beside it"
    _output_options(parser, DESCENT_FORMATS, "of the report ", output)


def _output_options(parser: argparse.ArgumentParser, formats: Iterable[str], what: str, output: str) -> None:
    told = f"{what}(what the suffix of --output says, or text)"
    parser.add_argument("--format", choices=tuple(formats), help=told)
    parser.add_argument("--output", type=Path, metavar="PATH", help=output)


def _expression_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--example",
        action="append",
        default=[],
        metavar="NAME",
        help="one that came along, as ols: `gradproof examples`",
    )
    parser.add_argument(
        "-e", "--expression", metavar="TEXT", help="a graph in place of a file; lines end with ';' too"
    )
    for name, what in (("given", "a fixed value"), ("parameter", "a value to differentiate by")):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help=f"{what} for -e: 1.5 or [[1, 2], [3, 4]]",
        )


def _engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        default="torch",
        help="the autograd under test (torch), FILE.py:NAME of an engine of your own, or all",
    )
    parser.add_argument("--dtype", help=DTYPE)


def _running_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help="check N targets at a time")
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="check them on the Dask cluster there, as tcp://10.0.0.1:8786"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep a record, and skip what it has and is unchanged"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="that a function or an engine of yours may take (600; 0: no end)",
    )
    parser.add_argument(
        "--memory",
        type=_bytes,
        metavar="SIZE",
        help="that it may use, as 4GB (half of the machine's; 0: no limit)",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds; 0 is for no end")
    return seconds


def _bytes(text: str) -> int:
    from .worker import amount

    try:
        return amount(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, as 4GB, 500MB or 0 for no limit") from None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


# Commands


def _examples(arguments: argparse.Namespace) -> int:
    from . import examples

    if arguments.copy is not None:
        count = examples.copy_to(arguments.copy)
        tell(f"{count} expression files are in {arguments.copy}; gradproof check {arguments.copy}")
        return ALL_PASS
    from .language.files import load

    rows = [(name, load(examples.path_of(name)).title) for name in examples.names()]
    width = max(len(name) for name, _ in rows)
    show("\n".join(f"{name:{width}}  {title}" for name, title in rows))
    return ALL_PASS


def _check(arguments: argparse.Namespace) -> int:
    from .telling import render, side_by_side

    arguments.format = form_of(arguments.format, arguments.output, FORMATS)
    if arguments.full and arguments.format not in ("json", "csv"):
        raise InputError("--full goes with --format json or csv")
    found = _checked(arguments, *_work(arguments))
    reports, errors = [report for _, report in found.done], found.errors
    _summarise(reports, errors)
    if arguments.engine == "all" and arguments.format == "text":
        text = side_by_side.render(reports, errors)
    else:
        text = render(reports, arguments.format, errors, full=arguments.full)
    if arguments.format == "text" and not reports:
        return _exit_code(reports, found)  # why was told already
    if arguments.output:
        write(arguments.output, text + "\n")
    else:
        show(text, coloured=arguments.format == "text")
    return _exit_code(reports, found)


def _explain(arguments: argparse.Namespace) -> int:
    from .telling import explained as explanation
    from .telling import of_pages

    arguments.format = form_of(arguments.format, arguments.output, EXPLANATIONS)
    if arguments.quiz:
        return _quiz(arguments)
    made = attempted(_problem_makers(arguments), lambda make: explanation.told(make()))
    if not made.done:
        return INTERRUPTED if made.interrupted else BAD_INPUT  # why was told already
    text = of_pages([page for _, page in made.done], arguments.format)
    if arguments.output:
        write(arguments.output, text + "\n")
    else:
        show(text)
    return INTERRUPTED if made.interrupted else BAD_INPUT if made.errors else ALL_PASS


def _help(arguments: argparse.Namespace) -> int:
    from .telling.meanings import MEANINGS

    word = arguments.verdict
    if word is None:
        show("\n".join(f"{name:12} {meaning.partition('. ')[0]}." for name, meaning in MEANINGS.items()))
        return ALL_PASS
    if word not in MEANINGS:
        raise InputError(
            f"there is no verdict {word!r}{did_you_mean(word, MEANINGS)} (one of {', '.join(MEANINGS)})"
        )
    show(f"{word}: {MEANINGS[word]}")
    return ALL_PASS


def _gradient(arguments: argparse.Namespace) -> int:
    import numpy as np

    from .telling import gradient

    arguments.format = form_of(arguments.format, arguments.output, GRADIENTS)
    problem = _one_problem(arguments, "a gradient is printed")
    from .exact import gradients

    found = gradients(problem)
    if arguments.format == "npz":
        if arguments.output is None:
            raise InputError("npz is no text; give a file by --output")
        write(arguments.output, gradient.npz(found))
    elif arguments.output is not None:
        write(arguments.output, gradient.FORMS[arguments.format](found) + "\n")
    else:
        show(gradient.FORMS[arguments.format](found))
    there = all(np.isfinite(one.values).all() for one in found.values())
    return ALL_PASS if there else NOT_DECIDED


def _quiz(arguments: argparse.Namespace) -> int:
    """Ask on stdin and stdout; the end of the input, or Ctrl-C, ends the quiz and tells the score."""
    from . import quiz

    if arguments.format != "text" or arguments.output:
        raise InputError("--quiz asks on the terminal; --format and --output do not go with it")
    write_anything()
    made = attempted(_problem_makers(arguments), lambda make: quiz.made(make()))
    for _, asked in made.done:
        _ask(asked)
    return INTERRUPTED if made.interrupted else BAD_INPUT if made.errors else ALL_PASS


def _ask(asked: Quiz) -> None:
    from .telling import number
    from .telling.explained import graph_alone

    print(graph_alone(asked.explanation))
    print("\nAnswer with a formula (2*l) or a number (-2). An empty line shows the answer; Ctrl-D ends.")
    total = len(asked.questions)
    right = at_once = done = 0
    try:
        for n, question in enumerate(asked.questions, 1):
            print(f"\n{n} of {total}   {question.asked} = ?")
            tries = _tries(asked, question)
            done += 1
            right += tries > 0
            at_once += tries == 1
            value = number(question.value)
            comes_to = "" if question.answer == value else f" = {value}"
            print(f"  {'right' if tries else 'the answer'}: {question.asked} = {question.answer}{comes_to}")
            if tries != 1 and question.why:
                print(f"  because: {question.why}")
    except (EOFError, KeyboardInterrupt):
        print()
    print(
        f"\n{right} of {done} right, {at_once} at the first try"
        + (f"; {total - done} not asked" if done < total else "")
    )


def _tries(asked: Quiz, question: Question) -> int:
    """How many tries it took to answer, of two; 0 for none that was right. What cannot be read is no try."""
    tries = 0
    while tries < 2:
        text = input("  > ")
        if not sys.stdin.isatty():
            print(text)  # so that what was piped in stands in what comes out
        if not text.strip():
            return 0
        try:
            judged = asked.judge(question, text)
        except InputError as error:
            print(f"  that cannot be read: {error}")
            continue
        tries += 1
        if judged.right:
            return tries
        print(f"  not {'yet' if tries < 2 else 'right'}{': ' + judged.words if judged.words else ''}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from importlib import import_module

    from .telling import PAGES

    pages, ending = (
        import_module(f".telling.{PAGES[arguments.format]}", __package__),
        PAGE_ENDINGS[arguments.format],
    )
    arguments.expression, arguments.given, arguments.parameter = None, [], []
    folder: Path = arguments.output
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file, expected a folder for the pages", Place(str(folder)))
    work, engines = _work(arguments)
    names = page_names([target for target, _ in work], len(engines), ending)
    pages_of: dict[int, list[tuple[Report, str]]] = {}

    def came(n: int, reports: list[Report]) -> None:
        """A page is written as soon as there is one: a kill loses those alone that were not reached."""
        pages_of[n] = list(zip(reports, names[n], strict=False))
        for report, name in pages_of[n]:
            write(folder / name, pages.page(report))

    found = _checked(arguments, work, engines, came)
    reports = [report for _, report in found.done]
    named = [page for n in sorted(pages_of) for page in pages_of[n]]
    write(folder / f"index{ending}", pages.index(named, found.errors))
    tell(f"{len(named)} pages and index{ending} in {folder}")
    return _exit_code(reports, found)


def _descend(arguments: argparse.Namespace) -> int:
    from .telling import descent as forms

    arguments.format = form_of(arguments.format, arguments.output, DESCENT_FORMATS)
    problem = _one_problem(arguments, "a descent is")
    from .descent.loop import descend

    own = "optimizer learning_rate steps dtype until accumulate micro_batches batch reduction".split()
    report = descend(
        problem,
        **{name: getattr(arguments, name) for name in own},
        options=_values(arguments.option, "--option"),
        watched=lambda steps: tracked(steps, len(steps), lambda n: f"step {n}"),
    )
    if arguments.output is None:
        show(forms.render(report, arguments.format), coloured=arguments.format == "text")
    else:
        path: Path = arguments.output
        images: list[str] = []
        if arguments.format == "markdown":
            for name, drawing in forms.plots(report).items():
                images.append(f"{path.stem}-{name}.svg")
                write(path.parent / images[-1], drawing + "\n")
        write(path, forms.render(report, arguments.format, images) + "\n")
    if report.interrupted:
        tell(f"interrupted after {len(report.steps)} of {report.asked} steps")
        return INTERRUPTED
    if report.ok:
        return ALL_PASS
    return SOMETHING_WRONG if report.verdict in ("wrong", "failed") else NOT_DECIDED


def _exit_code(reports: Sequence[Report], found: Attempts[Any]) -> int:
    if found.interrupted:
        return INTERRUPTED
    if found.errors:
        return BAD_INPUT
    if any(report.verdict in ("wrong", "failed") for report in reports if not report.ok):
        return SOMETHING_WRONG
    if any(report.expected and not report.ok for report in reports):
        return SOMETHING_WRONG  # the file promised another verdict
    return ALL_PASS if reports and all(report.ok for report in reports) else NOT_DECIDED


# Targets


def _work(arguments: argparse.Namespace) -> tuple[Work, Sequence[str]]:
    """What is to be checked, and by which engines."""
    from .dtypes import dtype_named
    from .engines import expect, installed
    from .targets import is_function

    if arguments.dtype:
        dtype_named(arguments.dtype)
    if arguments.jobs > 1:
        from .worker import prepare

        prepare()  # libraries load where processes come from while targets are read here
    engines = installed() if arguments.engine == "all" else (arguments.engine,)
    work: Work = []
    functions = [target for target in arguments.targets if is_function(target)]
    asked = ", ".join(f"--{name.removesuffix('s')}" for name in _of_derivatives(arguments))
    if asked and len(functions) < max(1, len(arguments.targets)):
        raise InputError(f"{asked} goes with functions, file.py:name; a file is checked as it is written")
    if functions:
        _only_their_own(arguments)
        work += [(target, target) for target in functions]
        arguments.targets = [target for target in arguments.targets if target not in functions]
    if arguments.targets or not functions:
        for engine in engines:
            if not is_function(engine):  # which is loaded where it runs
                expect(engine)
        work += _problem_makers(arguments)
    return work, engines


def _checked(
    arguments: argparse.Namespace,
    work: Work,
    engines: Sequence[str],
    came: Callable[[int, list[Report]], None] = lambda n, reports: None,
) -> Attempts[Report]:
    """A report for every target that can be read, told to `came` at once, and the reasons why the others
    cannot."""
    found = checked(work, engines, arguments.dtype, _way(arguments, engines), came)
    return Attempts(
        [(target, report) for target, reports in found.done for report in reports],
        found.errors,
        found.interrupted,
    )


def _way(arguments: argparse.Namespace, engines: Sequence[str]) -> Way:
    from .worker import Limits, half_of_memory

    seconds = Limits.seconds if arguments.timeout is None else arguments.timeout
    limits = Limits(seconds, half_of_memory() if arguments.memory is None else arguments.memory)
    asked = arguments.timeout is not None or arguments.memory is not None
    if arguments.dask is not None and arguments.jobs > 1:
        raise InputError(
            "--jobs is for processes here, --dask for those of a cluster; give the one or the other"
        )
    options = _of_derivatives(arguments)
    record = None
    if arguments.resume:
        from .record import Record, folder_of_records

        marked = arguments.format not in ("json", "csv", "junit")
        told = (*engines, *(f"{name}={value!r}" for name, value in sorted(options.items())))
        record = Record(folder_of_records(), told, arguments.dtype, marked)
        record.tidy()
    return Way(limits, asked, arguments.jobs, arguments.dask, record, options)


def _of_derivatives(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is asked of functions beside their backward, as `check_function` takes it."""
    asked = {name: getattr(arguments, name, None) for name in ("mode", "order", "contract")}
    options = {name: value for name, value in asked.items() if value}
    for option, name in (("surrogate", "surrogates"), ("implicit", "implicit")):
        for text in getattr(arguments, option, ()):
            kind, colon, formula = text.partition(":")
            if not colon:
                raise InputError(f"--{option} {text}: expected the Function's name and what it is, NAME:TEXT")
            options.setdefault(name, {})[kind.strip()] = formula.strip()
    return options


def _only_their_own(arguments: argparse.Namespace) -> None:
    if arguments.dtype:
        raise InputError(
            "--dtype goes with expression files; a function runs in the dtype of its own tensors"
        )
    if arguments.engine != "torch":
        raise InputError(
            f"--engine {arguments.engine} goes with expression files; a function is checked as torch runs it"
        )
    if arguments.expression is not None:
        raise InputError("-e stands in place of files; give the one or the other")


def _one_problem(arguments: argparse.Namespace, what: str) -> Problem:
    makers = _problem_makers(arguments)
    if len(makers) > 1:
        raise InputError(f"{len(makers)} files; {what} of one problem: name one of them")
    return makers[0][1]()


def _problem_makers(arguments: argparse.Namespace) -> list[tuple[str, Callable[[], Problem]]]:
    """Each target's name, and how to read it."""
    from .language.files import load, parse
    from .targets import is_function

    for target in arguments.targets:
        if is_function(target):
            cure = f"`gradproof check {target}` judges its gradients"
            why = f"{target}: a function of Python's has no lines to derive; {cure}"
            raise InputError(why)
    if arguments.expression is not None:
        if arguments.targets:
            raise InputError("-e stands in place of files; give the one or the other")
        given, parameters = _values(arguments.given, "--given"), _values(arguments.parameter, "--parameter")
        text = "\n".join(line.strip() for line in arguments.expression.split(";"))
        return [
            (
                "<expression>",
                partial(parse, text, given=given, parameters=parameters, title=arguments.expression),
            )
        ]
    if arguments.given or arguments.parameter:
        raise InputError("--given and --parameter go with -e; a file has its own values")
    if not arguments.targets:
        raise InputError('nothing to check; expected a file, a folder, or -e "loss = ..."')
    return [(str(path), partial(load, path)) for target in arguments.targets for path in _paths(Path(target))]


def _paths(target: Path) -> list[Path]:
    if target.is_dir():

        def unsearchable(error: OSError) -> None:
            raise InputError(f"cannot be searched: {error.strerror}", Place(str(error.filename)))

        walked = os.walk(target, onerror=unsearchable)
        found = sorted(
            Path(folder, name) for folder, _, names in walked for name in names if name.endswith(".toml")
        )
        if not found:
            raise InputError("the folder holds no expression file (*.toml)", Place(str(target)))
        return found
    if target.suffix == ".py" and target.is_file():
        from .targets import functions_in

        names = functions_in(target)
        there = f"it has {', '.join(names)}" if names else "it has none without arguments"
        as_in = f", as in {target}:{names[0]}" if names else ""
        raise InputError(f"which of its functions? {there}; name one{as_in}", Place(str(target)))
    return [target]


def _values(items: Sequence[str], option: str) -> dict[str, object]:
    import tomllib

    values: dict[str, object] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise InputError(f"{option} {item!r}: expected NAME=VALUE, as in x=1.5")
        if name.strip() in values:
            raise InputError(f"{option} {name.strip()!r} is given twice")
        try:
            values[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            raise InputError(
                f"{option} {item[:60]!r}: expected a number or nested lists of numbers"
            ) from None
    return values


# Output


def _summarise(reports: Sequence[Report], errors: Sequence[tuple[str, str]]) -> None:
    """Add to the summary of a step of GitHub's CI, where there is one; that it cannot be written to changes
    nothing else."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    from .telling import summary

    try:
        with Path(path).open("a", encoding="utf-8", newline="\n") as file:
            file.write(summary.render(reports, errors) + "\n")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        tell(f"GITHUB_STEP_SUMMARY {path}: cannot be written: {why}")
